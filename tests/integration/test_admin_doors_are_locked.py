"""Nobody gets in to `/admin/*` or `/account/*` without a credential that was given for it, and nobody guesses one."""

from typing import Any

import pytest
import pytest_asyncio
from integration.office import Office, some_address
from integration.shop import until

from stack.fixtures import MakeStack
from stack.stack import Stack

SOMETHING = "019f0000-0000-7000-8000-000000000000"
FORWARDED = [
    ("PUT", "/admin/prices"),
    ("GET", "/admin/usage"),
    ("POST", "/admin/nodes"),
    ("POST", f"/admin/nodes/{SOMETHING}/drain"),
    ("POST", f"/admin/dead-letters/{SOMETHING}/replay"),
    ("POST", f"/admin/tenants/{SOMETHING}/credits"),
    ("GET", "/admin/nothing/at/all"),
]
WRONG = ["", "x", "changeme", "clk_" + "0" * 42, "clo_" + "0" * 42, "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack) -> Stack:
    return await make_stack_of_module(simulators=1, service_env={"GATEWAY_AUTH_FAILURE_SECONDS": "3"})


@pytest.fixture
async def office(stack: Stack) -> Office:
    return await Office.open(stack)


async def routes(office: Office) -> list[tuple[str, str]]:
    """Every guarded route that the gateway documents."""
    document = (await office.call("GET", "/openapi.json", token="")).body
    return [
        (method.upper(), "/".join(SOMETHING if part.startswith("{") else part for part in path.split("/")))
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith(("/admin", "/account"))
    ]


async def test_every_route_asks_for_a_credential(office: Office) -> None:
    found = await routes(office)
    assert len(found) > 30
    for method, path in [*found, *FORWARDED]:
        for token in WRONG:
            answer = await office.call(method, path, {}, token=token)
            assert answer.status == 401, (method, path, token, answer)
            assert answer.code == ("invalid_admin_token" if path.startswith("/admin") else "invalid_token")


async def test_an_api_key_and_the_root_token_open_nothing_else(office: Office) -> None:
    created = await office.admin("POST", "/admin/api-keys", {"tenant_id": office.tenant_id, "name": "k"})
    assert (await office.call("GET", "/admin/tenants", token=created["key"])).status == 401
    assert (await office.call("GET", "/account", token=created["key"])).status == 401
    assert (await office.call("GET", "/account")).status == 401
    assert (await office.call("GET", "/v1/models")).status == 401


async def test_an_operator_does_what_its_scopes_say_until_it_is_revoked(office: Office) -> None:
    name = f"o-{office.tenant_id[-12:]}"
    operator = await office.admin("POST", "/admin/operators", {"name": name, "scopes": ["keys", "tenants:read"]})
    token = operator["token"]
    assert token.startswith("clo_")
    new = {"tenant_id": office.tenant_id, "name": "k"}
    created = await office.call("POST", "/admin/api-keys", new, token=token)
    assert created.status == 201
    assert (await office.call("GET", f"/admin/tenants/{office.tenant_id}", token=token)).status == 200
    for method, path, body in [
        ("PATCH", f"/admin/tenants/{office.tenant_id}", {"status": "suspended"}),
        ("POST", f"/admin/tenants/{office.tenant_id}/credits", {"amount_usd": "1000", "reason": "me"}),
        ("GET", "/admin/nodes", None),
        ("GET", "/admin/audit", None),
        ("GET", "/admin/operators", None),
        ("POST", "/admin/operators", {"name": f"{name}-2", "scopes": ["*"]}),
    ]:
        answer = await office.call(method, path, body, token=token)
        assert (answer.status, answer.code) == (403, "scope_missing"), (path, answer)
    (entry,) = [e for e in await office.audit(actor=f"operator:{name}") if e["status"] == 201]
    assert (entry["target"], entry["action"]) == (created.body["id"], "POST /admin/api-keys")

    again = await office.call("POST", "/admin/operators", {"name": name, "scopes": ["*"]})
    assert (again.status, again.body["error"]["param"]) == (409, "name")
    assert "token" not in str((await office.admin("GET", "/admin/operators"))["operators"])
    await office.admin("DELETE", f"/admin/operators/{operator['id']}")
    assert (await office.call("POST", "/admin/api-keys", new, token=token)).status == 401
    again = await office.call("POST", "/admin/operators", {"name": name, "scopes": ["*"]})
    assert again.status == 201
    assert (await office.call("GET", "/admin/operators", token=again.body["token"])).status == 200


async def test_the_owner_of_a_call_learns_which_operator_made_it(office: Office) -> None:
    name = f"p-{office.tenant_id[-12:]}"
    created = await office.admin("POST", "/admin/operators", {"name": name, "scopes": ["prices"]})
    price = {"model": f"m/{name}", "input_usd_per_million": "1", "output_usd_per_million": "1"}
    assert (await office.call("PUT", "/admin/prices", price, token=created["token"])).status < 300
    listed: list[dict[str, Any]] = (await office.admin("GET", "/admin/prices"))["prices"]
    (found,) = [p for p in listed if p["model"] == price["model"]]
    assert found["created_by"] == f"operator:{name}"


@pytest.mark.parametrize("path", ["/admin/tenants", "/account"])
async def test_who_guesses_must_wait_and_nobody_else(office: Office, path: str) -> None:
    address = some_address()
    for n in range(60):  # what is left of our address is a claim of the client
        refused = await office.call("GET", path, token="wrong", address=f"1.1.1.{n}, {address}")
        if refused.status == 429:
            break
        assert refused.status == 401
    assert (refused.status, refused.code) == (429, "too_many_failures")
    assert n >= 10
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    # were the right token let through, the wait would tell a guesser that the others were wrong
    assert (await office.call("GET", "/admin/tenants", address=address)).status == 429
    assert (await office.call("GET", "/admin/tenants", address=some_address())).status == 200
    await until(lambda: office.call("GET", "/admin/tenants", address=address), lambda a: a.status == 200)
