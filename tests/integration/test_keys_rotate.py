"""An API key can be replaced without a gap, narrowed, and its use be seen."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from integration.office import Office
from integration.shop import until

from stack.fixtures import MakeStack
from stack.stack import Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack) -> Stack:
    return await make_stack_of_module(simulators=1, gateways=2, service_env={"GATEWAY_LAST_USED_SECONDS": "0.2"})


@pytest.fixture
async def office(stack: Stack) -> Office:
    return await Office.open(stack)


async def create(office: Office, **settings: Any) -> dict[str, Any]:
    created: dict[str, Any] = await office.admin(
        "POST", "/admin/api-keys", {"tenant_id": office.tenant_id, "name": "k", **settings}
    )
    return created


async def listed(office: Office, id: str) -> dict[str, Any]:
    keys = (await office.admin("GET", f"/admin/api-keys?tenant_id={office.tenant_id}"))["api_keys"]
    (found,) = [key for key in keys if key["id"] == id]
    return dict(found)


async def works(office: Office, key: str) -> bool:
    """On both gateways, as far as a few connections can tell."""
    answers = await asyncio.gather(*[office.call("GET", "/v1/models", token=key) for _ in range(8)])
    return {answer.status for answer in answers} == {200}


async def test_a_rotated_key_works_until_the_overlap_ends(office: Office) -> None:
    old = await create(office, requests_per_minute=100, models=["a"], budget_usd="5")
    assert await works(office, old["key"])
    new = await office.admin("POST", f"/admin/api-keys/{old['id']}/rotate", {"overlap_s": 3})
    assert set(new) == {"id", "key", "prefix"}
    assert await works(office, new["key"])
    assert await works(office, old["key"])
    was, now = await listed(office, old["id"]), await listed(office, new["id"])
    for setting in ("name", "environment_id", "requests_per_minute", "models", "budget_usd", "scopes"):
        assert was[setting] == now[setting]
    assert now["expires_at"] is None

    async def refused() -> bool:
        return (await office.call("GET", "/v1/models", token=old["key"])).status == 401

    await until(refused, bool)
    assert datetime.now(UTC) >= datetime.fromisoformat(was["expires_at"])
    assert await works(office, new["key"])
    again = await office.call("POST", f"/admin/api-keys/{old['id']}/rotate")
    assert (again.status, again.code) == (409, "conflict")


async def test_without_overlap_the_old_key_ends_within_a_second(office: Office) -> None:
    old = await create(office)
    assert await works(office, old["key"])
    new = await office.admin("POST", f"/admin/api-keys/{old['id']}/rotate")

    async def all_refuse() -> bool:
        answers = await asyncio.gather(*[office.call("GET", "/v1/models", token=old["key"]) for _ in range(8)])
        return {answer.status for answer in answers} == {401}

    await until(all_refuse, bool, deadline=1)
    assert await works(office, new["key"])


async def test_of_rotations_at_the_same_time_one_wins(office: Office) -> None:
    old = await create(office)
    answers = await asyncio.gather(*[office.call("POST", f"/admin/api-keys/{old['id']}/rotate") for _ in range(6)])
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409, 409]


@pytest.mark.parametrize("overlap", [-1, 30 * 86_400 + 1, "long", None])
async def test_a_wrong_overlap_is_named(office: Office, overlap: Any) -> None:
    old = await create(office)
    answer = await office.call("POST", f"/admin/api-keys/{old['id']}/rotate", {"overlap_s": overlap})
    assert (answer.status, answer.body["error"]["param"]) == (400, "overlap_s")


async def test_what_is_absent_stays_and_null_clears(office: Office) -> None:
    key = await create(office, requests_per_minute=7, tokens_per_minute=8, models=["a", "b"])
    path = f"/admin/api-keys/{key['id']}"
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    changed = await office.admin("PATCH", path, {"name": "other", "requests_per_minute": None, "expires_at": soon})
    assert (changed["name"], changed["requests_per_minute"], changed["tokens_per_minute"]) == ("other", None, 8)
    assert (await office.admin("PATCH", path, {}))["models"] == ["a", "b"]
    changed = await office.admin("PATCH", path, {"models": None, "expires_at": None})
    assert changed == await listed(office, key["id"])
    assert (changed["models"], changed["expires_at"]) == (None, None)
    for wrong in (
        {"name": None},
        {"models": "a"},
        {"tenant_id": office.tenant_id},
        {"expires_at": "2020-01-01T00:00:00Z"},
    ):
        answer = await office.call("PATCH", path, wrong)
        assert (answer.status, answer.body["error"]["param"]) == (400, next(iter(wrong)))
    await office.admin("DELETE", path)
    assert (await office.call("PATCH", path, {"name": "x"})).status == 409


async def test_a_key_does_what_its_scopes_say(office: Office) -> None:
    key = await create(office, scopes=["usage:read"])
    body = {"model": "demo-8b", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    assert (await office.call("GET", "/v1/usage", token=key["key"])).status == 200
    for method, path in [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings")]:
        answer = await office.call(method, path, body if method == "POST" else None, token=key["key"])
        assert (answer.status, answer.code) == (403, "scope_missing")
    await office.admin("PATCH", f"/admin/api-keys/{key['id']}", {"scopes": ["inference"]})

    async def served() -> int:
        return (await office.call("POST", "/v1/chat/completions", body, token=key["key"])).status

    await until(served, lambda status: status == 200)
    assert (await office.call("GET", "/v1/usage", token=key["key"])).status == 403


async def test_the_last_use_of_a_key_is_seen(office: Office) -> None:
    key = await create(office)
    assert (await listed(office, key["id"]))["last_used_at"] is None
    before = datetime.now(UTC)
    assert await works(office, key["key"])
    found = await until(lambda: listed(office, key["id"]), lambda row: row["last_used_at"] is not None)
    assert before <= datetime.fromisoformat(found["last_used_at"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/admin/tenants", b'{"name": "a\\u0000b", "email": "a@b"}', "name"),
        ("POST", "/admin/tenants", b'{"name": "a", "email": "a\\u0000@b"}', "email"),
        ("POST", "/admin/tenants", b'{"name": "a", "email": "a@b", "plan": "\\n"}', "plan"),
        ("POST", "/admin/tenants", b'{"name": "\\ud800", "email": "a@b"}', None),
        ("POST", "/admin/api-keys", b'{"tenant_id": "%s", "name": "k", "budget_usd": "NaN"}', "budget_usd"),
        ("POST", "/admin/api-keys", b'{"tenant_id": "%s", "name": "k", "budget_usd": "-1"}', "budget_usd"),
        ("POST", "/admin/api-keys", b'{"tenant_id": "%s", "name": "k", "models": ["\\u0000"]}', None),
        ("POST", "/admin/api-keys", b'{"tenant_id": "%s", "name": "k", "environment": "\\u0000"}', "environment"),
        ("GET", "/admin/audit?actor=%%00", b"", "actor"),
        ("GET", "/admin/audit?cursor=99999999999999999999", b"", "cursor"),
        ("GET", "/admin/audit?cursor=0", b"", "cursor"),
    ],
)
async def test_what_cannot_be_stored_is_refused(
    office: Office, method: str, path: str, body: bytes, param: str | None
) -> None:
    sent = body.replace(b"%s", office.tenant_id.encode())
    answer = await office.call(method, path.replace("%%", "%"), sent or None)
    assert answer.status == 400, answer
    if param is not None:
        assert answer.body["error"]["param"] == param


async def test_limits_of_tenant_and_environment_are_kept(office: Office) -> None:
    path = f"/admin/tenants/{office.tenant_id}"
    limits = {"requests_per_minute": 5, "max_concurrency": 2}
    changed = await office.admin("PATCH", path, {"limits": limits, "plan": "free"})
    (production,) = changed["environments"]
    await office.admin("PATCH", f"{path}/environments/{production['id']}", {"limits": {"tokens_per_minute": 9}})
    found = await office.admin("GET", path)
    assert (found["limits"], found["plan"], found["name"]) == (limits, "free", "t")
    assert found["environments"][0]["limits"] == {"tokens_per_minute": 9}
    for wrong, param in [
        ({"budget": 1}, "budget"),
        ({"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"status": "gone"}, "status"),
        ({"email": "nobody"}, "email"),
    ]:
        answer = await office.call("PATCH", path, wrong)
        assert (answer.status, answer.body["error"]["param"]) == (400, param)
