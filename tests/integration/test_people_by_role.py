"""A signed-in person does in a tenant what their role there says, and learns nothing of any other."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio
import stripe_double
from integration.issuer import KEYS, Issuer
from integration.office import Office
from stripe_double import Double

from stack.fixtures import MakeStack
from stack.stack import Stack

ROLES = ("owner", "admin", "developer", "billing", "viewer")
READERS = set(ROLES)
KEY_READERS = {"owner", "admin", "developer", "viewer"}
KEY_WRITERS = {"owner", "admin", "developer"}
ADMINS = {"owner", "admin"}
PAYERS = {"owner", "admin", "billing"}
T = "/account/tenants/{tenant_id}"
N = f"{T}/notifications"
TABLE: dict[tuple[str, str], set[str]] = {
    ("GET", "/account"): READERS,
    ("GET", T): READERS,
    ("GET", f"{T}/api-keys"): KEY_READERS,
    ("POST", f"{T}/api-keys"): KEY_WRITERS,
    ("PATCH", f"{T}/api-keys/{{key_id}}"): KEY_WRITERS,
    ("POST", f"{T}/api-keys/{{key_id}}/rotate"): KEY_WRITERS,
    ("DELETE", f"{T}/api-keys/{{key_id}}"): KEY_WRITERS,
    ("GET", f"{T}/members"): READERS,
    ("POST", f"{T}/members"): ADMINS,
    ("PATCH", f"{T}/members/{{member_id}}"): ADMINS,
    ("DELETE", f"{T}/members/{{member_id}}"): ADMINS,
    ("GET", f"{T}/environments"): READERS,
    ("POST", f"{T}/environments"): ADMINS,
    ("PATCH", f"{T}/environments/{{environment_id}}"): ADMINS,
    ("GET", f"{T}/usage"): READERS,
    ("GET", f"{T}/usage.csv"): READERS,
    ("GET", f"{T}/usage/records"): READERS,
    ("GET", f"{T}/invoices"): PAYERS,
    ("GET", f"{T}/balance"): PAYERS,
    ("GET", f"{T}/credits"): PAYERS,
    ("GET", f"{T}/plan"): PAYERS,
    ("PUT", f"{T}/budget"): PAYERS,
    ("GET", N): PAYERS,
    ("POST", f"{N}/channels"): PAYERS,
    ("PATCH", f"{N}/channels/{{channel_id}}"): PAYERS,
    ("DELETE", f"{N}/channels/{{channel_id}}"): PAYERS,
    ("POST", f"{N}/channels/{{channel_id}}/test"): PAYERS,
    ("GET", f"{N}/deliveries"): PAYERS,
    ("POST", f"{N}/deliveries/{{notice_id}}/replay"): PAYERS,
    ("POST", f"{T}/checkout"): PAYERS,
    ("POST", f"{T}/portal"): PAYERS,
    ("GET", f"{T}/audit"): ADMINS,
}
HOOK = {"kind": "webhook", "target": "https://example.invalid/hook"}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "api-keys"): {"name": "k"},
    ("PATCH", "api-keys"): {"name": "k2"},
    ("POST", "rotate"): {},
    ("POST", "members"): {"role": "viewer"},
    ("PATCH", "members"): {"role": "billing"},
    ("POST", "environments"): {},
    ("PATCH", "environments"): {"region": "eu"},
    ("POST", "channels"): HOOK,
    ("POST", "checkout"): {
        "amount_usd": "5",
        "success_url": "https://shop.example/yes",
        "cancel_url": "https://shop.example/no",
    },
    ("POST", "portal"): {"return_url": "https://shop.example"},
    ("PUT", "budget"): {"monthly_usd": "5", "hard": False},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.open() as issuer:
        yield issuer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double() -> AsyncIterator[Double]:
    async with stripe_double.serve() as double:
        yield double


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack, issuer: Issuer, double: Double) -> Stack:
    env = {
        "OIDC_ISSUERS": f"https://other.example,{issuer.url}",
        "STRIPE_API_KEY": "sk_test_1",
        "STRIPE_API_BASE": double.url,
    }
    return await make_stack_of_module(simulators=1, service_env=env)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def office(stack: Stack) -> Office:
    office = await Office.open(stack)
    for role in ROLES:
        new = {"email": f"{role.upper()}@{office.tenant_id}.example", "role": role}
        await office.admin("POST", f"/admin/tenants/{office.tenant_id}/members", new)
    return office


def person(office: Office, role: str) -> str:
    return f"{role}@{office.tenant_id}.example"


async def test_the_table_has_every_route(office: Office) -> None:
    document = (await office.call("GET", "/openapi.json", token="")).body
    found = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/account")
    }
    assert found == set(TABLE)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "route"), TABLE)
async def test_a_role_may_do_what_the_table_says(
    office: Office, issuer: Issuer, role: str, method: str, route: str
) -> None:
    path, body = await furnished(office, method, route)
    answer = await office.call(method, path, body, token=issuer.token(person(office, role)))
    if role in TABLE[method, route]:
        assert answer.status in (200, 201, 202, 204), answer
    else:
        assert (answer.status, answer.code) == (403, "role_missing")
        (entry, *_) = await office.audit(tenant_id=office.tenant_id)
        assert (entry["actor"], entry["status"]) == (f"user:{person(office, role)}", 403)


@pytest.mark.parametrize(("method", "route"), [key for key in TABLE if key[1] != "/account"])
async def test_a_stranger_finds_no_tenant(office: Office, issuer: Issuer, method: str, route: str) -> None:
    path, body = await furnished(office, method, route)
    token = issuer.token("stranger@example.com")
    answer = await office.call(method, path, body, token=token)
    nowhere = path.replace(office.tenant_id, "019f0000-0000-7000-8000-000000000000")
    none = await office.call(method, nowhere, body, token=token)
    assert (answer.status, answer.code, none.status, none.code) == (404, "not_found", 404, "not_found")


async def furnished(office: Office, method: str, route: str) -> tuple[str, dict[str, Any] | None]:
    """The path and the body of a call that would succeed."""
    tenant = f"/admin/tenants/{office.tenant_id}"
    path, body = route.replace("{tenant_id}", office.tenant_id), None
    if "{key_id}" in path:
        new = {"tenant_id": office.tenant_id, "name": "k"}
        path = path.replace("{key_id}", (await office.admin("POST", "/admin/api-keys", new))["id"])
    if "{member_id}" in path:
        new = {"email": f"m{time.time_ns()}@example.com", "role": "developer"}
        path = path.replace("{member_id}", (await office.admin("POST", f"{tenant}/members", new))["id"])
    if "{environment_id}" in path:
        path = path.replace("{environment_id}", (await office.admin("GET", tenant))["environments"][0]["id"])
    if "{channel_id}" in path or "{notice_id}" in path:
        channel = (await office.admin("POST", f"{tenant}/notifications/channels", HOOK))["id"]
        path = path.replace("{channel_id}", channel)
        if "{notice_id}" in path:
            told = await office.admin("POST", f"{tenant}/notifications/channels/{channel}/test", {})
            path = path.replace("{notice_id}", told["notice_id"])
        elif method == "PATCH":
            body = {"topics": ["invoice.ready"]}
    for (verb, word), content in BODIES.items():
        if verb == method and word in route.split("/")[4:5] + route.split("/")[-1:]:
            body = dict(content)
    if (method, route) == ("POST", f"{T}/members"):
        body = {"email": f"n{time.time_ns()}@example.com", "role": "viewer"}
    if (method, route) == ("POST", f"{T}/environments"):
        body = {"name": f"e{time.time_ns()}"}
    return path, body


async def test_a_person_sees_their_tenants(office: Office, issuer: Issuer) -> None:
    answer = await office.call("GET", "/account", token=issuer.token(person(office, "viewer").upper()))
    assert answer.body["email"] == person(office, "viewer")
    expected = {"tenant_id": office.tenant_id, "tenant": "t", "status": "active", "role": "viewer"}
    assert answer.body["memberships"] == [expected]


async def test_only_owners_make_and_unmake_owners(office: Office, issuer: Issuer) -> None:
    path = f"/account/tenants/{office.tenant_id}/members"
    admin, owner = issuer.token(person(office, "admin")), issuer.token(person(office, "owner"))
    ids = {m["role"]: m["id"] for m in (await office.call("GET", path, token=admin)).body["members"]}
    for method, at, body in [
        ("DELETE", f"{path}/{ids['owner']}", None),
        ("PATCH", f"{path}/{ids['owner']}", {"role": "viewer"}),
        ("PATCH", f"{path}/{ids['admin']}", {"role": "owner"}),
        ("POST", path, {"email": "x@example.com", "role": "owner"}),
    ]:
        assert (await office.call(method, at, body, token=admin)).status == 403
    assert (await office.call("DELETE", f"{path}/{ids['owner']}", token=owner)).status == 409
    assert (await office.call("PATCH", f"{path}/{ids['admin']}", {"role": "owner"}, token=owner)).status == 200
    assert (await office.call("DELETE", f"{path}/{ids['owner']}", token=owner)).status == 204
    assert (await office.call("GET", path, token=owner)).status == 404


async def test_a_key_of_another_tenant_is_not_found(office: Office, issuer: Issuer, stack: Stack) -> None:
    other = await Office.open(stack)
    key = await other.admin("POST", "/admin/api-keys", {"tenant_id": other.tenant_id, "name": "k"})
    path, token = f"/account/tenants/{office.tenant_id}/api-keys/{key['id']}", issuer.token(person(office, "owner"))
    for method, at, body in [("PATCH", path, {"name": "x"}), ("POST", f"{path}/rotate", {}), ("DELETE", path, None)]:
        assert (await office.call(method, at, body, token=token)).status == 404
    body = {"name": "k", "tenant_id": other.tenant_id}
    refused = await office.call("POST", f"/account/tenants/{office.tenant_id}/api-keys", body, token=token)
    assert (refused.status, refused.body["error"]["param"]) == (400, "tenant_id")


async def test_usage_is_of_the_tenant_in_the_path_whatever_the_query_says(office: Office, issuer: Issuer) -> None:
    token = issuer.token(person(office, "billing"))
    path = f"/account/tenants/{office.tenant_id}/usage?tenant_id={office.stack.tenant_id}"
    answer = await office.call("GET", path, token=token)
    assert (answer.status, answer.body["rows"]) == (200, [])


async def test_a_budget_is_of_the_tenant_in_the_path_whatever_the_body_says(office: Office, issuer: Issuer) -> None:
    token, path = issuer.token(person(office, "billing")), f"/account/tenants/{office.tenant_id}"
    answer = await office.call("PUT", f"{path}/budget", {"monthly_usd": "7", "hard": True}, token=token)
    assert (answer.status, answer.body["monthly_usd"], answer.body["hard"]) == (200, "7.00", True)
    shown = await office.admin("GET", f"/admin/tenants/{office.tenant_id}")
    assert (shown["budget"], shown["plan"]) == ({"monthly_usd": "7.00", "hard": True}, "pay_as_you_go")
    for wrong, param in [({"monthly_usd": "-1"}, "monthly_usd"), ({"monthly_usd": "1", "tenant_id": "x"}, "tenant_id")]:
        refused = await office.call("PUT", f"{path}/budget", wrong, token=token)
        assert (refused.status, refused.body["error"]["param"]) == (400, param)
    (entry, *_) = [e for e in await office.audit(tenant_id=office.tenant_id) if e["status"] == 200]
    assert (entry["actor"], entry["action"].split()[0]) == (f"user:{person(office, 'billing')}", "PUT")


async def test_an_admin_sets_plan_and_budget_with_the_tenant(office: Office) -> None:
    new = {"name": "n", "email": "n@example.com", "plan": "prepaid"}
    tenant = await office.admin("POST", "/admin/tenants", new)
    path = f"/admin/tenants/{tenant['id']}"
    assert (tenant["plan"], (await office.admin("GET", path))["plan"]) == ("prepaid", "prepaid")
    changed = await office.admin("PATCH", path, {"plan": "free", "budget": {"monthly_usd": "3", "hard": False}})
    assert (changed["plan"], changed["budget"]) == ("free", {"monthly_usd": "3.00", "hard": False})
    assert (await office.admin("PATCH", path, {"budget": None}))["budget"] is None
    refused = await office.call("PATCH", path, {"budget": {"monthly_usd": "1e-13"}})
    assert (refused.status, refused.body["error"]["param"]) == (400, "monthly_usd")
    assert (await office.call("POST", "/admin/tenants", {**new, "plan": "gold"})).status == 400


async def test_members_of_a_suspended_tenant_only_read(office: Office, issuer: Issuer) -> None:
    await office.admin("PATCH", f"/admin/tenants/{office.tenant_id}", {"status": "suspended"})
    token, path = issuer.token(person(office, "owner")), f"/account/tenants/{office.tenant_id}/api-keys"
    refused = await office.call("POST", path, {"name": "k"}, token=token)
    assert (refused.status, refused.code) == (403, "tenant_suspended")
    assert (await office.call("GET", path, token=token)).status == 200


@pytest.mark.parametrize("kid", KEYS)
async def test_each_kind_of_key_signs(office: Office, issuer: Issuer, kid: str) -> None:
    assert (await office.call("GET", "/account", token=issuer.token(person(office, "owner"), kid=kid))).status == 200


async def test_a_token_that_is_not_quite_right_opens_nothing(office: Office, issuer: Issuer) -> None:
    email, now = person(office, "owner"), int(time.time())
    good = issuer.token(email)
    claims = jwt.decode(good, options={"verify_signature": False})
    unsigned = ".".join(_part(part) for part in ({"alg": "none", "kid": "EdDSA"}, claims)) + "."
    wrong = {
        "unsigned": unsigned,
        "signed with a shared secret": jwt.encode(claims, "x" * 32, "HS256", headers={"kid": "RS256"}),
        "of another key than it says": issuer.token(email, kid="ES256", header={"kid": "EdDSA"}),
        "of a key that is not published": issuer.token(email, header={"kid": "other"}),
        "of another issuer": issuer.token(email, iss="https://evil.example"),
        "of a trusted issuer that did not sign it": issuer.token(email, iss="https://other.example"),
        "for somebody else": issuer.token(email, aud="another"),
        "for nobody": issuer.token(email, aud=None),
        "expired": issuer.token(email, exp=now - 31),
        "for ever": issuer.token(email, exp=None),
        "of the future": issuer.token(email, nbf=now + 60),
        "without an address": issuer.token(email, email=None),
        "changed": good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB"),
    }
    for what, token in wrong.items():
        answer = await office.call("GET", "/account", token=token)
        expected = 503 if "did not sign" in what else 401
        assert answer.status == expected, (what, answer)
    for verified in (False, None):
        answer = await office.call("GET", "/account", token=issuer.token(email, email_verified=verified))
        assert (answer.status, answer.code) == (403, "email_not_verified")
    assert (await office.call("GET", "/account", token=issuer.token(email, exp=now - 10))).status == 200
    assert issuer.asked <= 3


def _part(content: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
