"""Every change by an admin or a member, and every denial, is in the log; one that was changed does not verify."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import nats
import pytest
import pytest_asyncio
from integration.office import Office, some_address
from integration.shop import until

from common.events import AuditRecorded
from gateway.audit import Sealed, first_bad
from stack.fixtures import MakeStack
from stack.stack import Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack) -> Stack:
    return await make_stack_of_module(simulators=1, gateways=2)


@pytest.fixture
async def office(stack: Stack) -> Office:
    return await Office.open(stack)


@pytest.fixture
async def superuser(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.postgres_dsn)
    yield connection
    await connection.close()


async def test_each_change_has_an_entry(office: Office) -> None:
    tenant = f"/admin/tenants/{office.tenant_id}"
    environment = await office.admin("POST", f"{tenant}/environments", {"name": "staging"})
    await office.admin("PATCH", f"{tenant}/environments/{environment['id']}", {"region": "eu"})
    await office.admin("PATCH", tenant, {"name": "other"})
    member = await office.admin("POST", f"{tenant}/members", {"email": "a@example.com", "role": "viewer"})
    await office.admin("PATCH", f"{tenant}/members/{member['id']}", {"role": "owner"})
    await office.admin("DELETE", f"{tenant}/members/{member['id']}")
    key = await office.admin("POST", "/admin/api-keys", {"tenant_id": office.tenant_id, "name": "k"})
    await office.admin("PATCH", f"/admin/api-keys/{key['id']}", {"name": "k2"})
    new = await office.admin("POST", f"/admin/api-keys/{key['id']}/rotate")
    await office.admin("DELETE", f"/admin/api-keys/{new['id']}")
    entries = await office.audit(tenant_id=office.tenant_id)
    assert [(e["action"], e["target"], e["status"]) for e in reversed(entries)] == [
        ("POST /admin/tenants", office.tenant_id, 201),
        ("POST /admin/tenants/{tenant_id}/environments", environment["id"], 201),
        ("PATCH /admin/tenants/{tenant_id}/environments/{environment_id}", environment["id"], 200),
        ("PATCH /admin/tenants/{tenant_id}", office.tenant_id, 200),
        ("POST /admin/tenants/{tenant_id}/members", member["id"], 201),
        ("PATCH /admin/tenants/{tenant_id}/members/{member_id}", member["id"], 200),
        ("DELETE /admin/tenants/{tenant_id}/members/{member_id}", member["id"], 204),
        ("POST /admin/api-keys", key["id"], 201),
        ("PATCH /admin/api-keys/{key_id}", key["id"], 200),
        ("POST /admin/api-keys/{key_id}/rotate", key["id"], 201),
        ("DELETE /admin/api-keys/{key_id}", new["id"], 204),
    ]
    assert {e["actor"] for e in entries} == {"root"}
    assert entries[0]["before_sha256"] != entries[0]["after_sha256"]
    digest = hashlib.sha256(key["key"].encode()).hexdigest()
    assert key["key"] not in str(entries)
    assert digest not in str(entries)


async def test_a_change_that_is_refused_leaves_none(office: Office) -> None:
    before = len(await office.audit(tenant_id=office.tenant_id))
    path = f"/admin/tenants/{office.tenant_id}"
    assert (await office.call("POST", f"{path}/environments", {"name": "production"})).status == 409
    assert (await office.call("PATCH", path, {"status": "gone"})).status == 400
    assert len(await office.audit(tenant_id=office.tenant_id)) == before


async def test_a_denial_names_who_was_denied_and_from_where(office: Office) -> None:
    name, address = f"o-{office.tenant_id[-12:]}", some_address()
    operator = await office.admin("POST", "/admin/operators", {"name": name, "scopes": ["keys:read"]})
    path = f"/admin/tenants/{office.tenant_id}"
    denied = await office.call("PATCH", path, {"status": "suspended"}, token=operator["token"], address=address)
    assert denied.status == 403
    (entry,) = await office.audit(actor=f"operator:{name}")
    assert (entry["action"], entry["target"], entry["status"]) == ("PATCH /admin/tenants/{tenant_id}", path, 403)
    assert (entry["address"], entry["request_id"]) == (address, denied.headers["x-request-id"])

    wrong = await office.call("DELETE", "/admin/nodes/x", token="wrong", address=address)
    for _ in range(40):
        slow = await office.call("GET", "/account", token="wrong", address=address)
        if slow.status == 429:
            break
    found = {e["request_id"]: e for e in await office.audit(actor="unknown", limit=1000)}
    assert (found[wrong.headers["x-request-id"]]["status"], wrong.status) == (401, 401)
    assert (found[slow.headers["x-request-id"]]["status"], slow.status) == (429, 429)


async def test_a_forwarded_change_has_its_intent_and_its_outcome(office: Office) -> None:
    price = {"model": f"m/{office.tenant_id}", "input_usd_per_million": "1", "output_usd_per_million": "1"}
    good = await office.call("PUT", "/admin/prices", price)
    bad = await office.call("POST", f"/admin/tenants/{office.tenant_id}/credits", {"amount_usd": "x"})
    assert (good.status, bad.status) == (200, 400)
    found = [e for e in await office.audit(limit=200) if e["request_id"] == good.headers["x-request-id"]]
    assert [(e["action"], e["status"]) for e in reversed(found)] == [
        ("PUT /admin/prices", None),
        ("PUT /admin/prices", 200),
    ]
    assert found[1]["after_sha256"] is not None
    found = [e for e in await office.audit(tenant_id=office.tenant_id) if "credits" in e["action"]]
    assert [e["status"] for e in found] == [400, None]


async def test_an_owner_that_does_not_answer_leaves_an_outcome_too(office: Office, stack: Stack) -> None:
    await stack.kill("scheduler", signal=signal.SIGSTOP)
    try:
        answer = await office.call("POST", "/admin/nodes", {"endpoint": "http://127.0.0.1:9"})
    finally:
        await stack.kill("scheduler", signal=signal.SIGCONT)
    assert answer.status == 503
    found = [e for e in await office.audit(limit=200) if e["request_id"] == answer.headers["x-request-id"]]
    assert [e["status"] for e in found] == [503, None]


async def test_a_client_that_hangs_up_leaves_an_outcome_too(office: Office, stack: Stack) -> None:
    address = some_address()
    await stack.kill("scheduler", signal=signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await office.call("POST", "/admin/nodes", {"endpoint": "file:///"}, address=address)
    finally:
        await stack.kill("scheduler", signal=signal.SIGCONT)

    async def told() -> list[int | None]:
        return [e["status"] for e in await office.audit(limit=200) if e["address"] == address]

    assert (await until(told, lambda found: len(found) == 2))[0] in (400, 503)


async def test_reading_is_no_change(office: Office) -> None:
    address = some_address()
    for path in ("/admin/tenants", "/admin/prices", "/admin/audit", "/admin/operators", "/admin/audit/verify"):
        assert (await office.call("GET", path, address=address)).status == 200
    assert address not in {e["address"] for e in await office.audit(limit=1000)}


async def test_a_flood_of_denials_does_not_fill_the_log(office: Office) -> None:
    address = some_address()
    for _ in range(15):
        await asyncio.gather(*[office.call("GET", "/admin/x", token="wrong", address=address) for _ in range(10)])
    told = [e for e in await office.audit(actor="unknown", limit=1000) if e["address"] == address]
    assert 20 <= len(told) <= 2 * 20 * 2  # two gateways, and a minute may have ended


async def test_changes_at_the_same_time_make_one_chain(office: Office) -> None:
    path = f"/admin/tenants/{office.tenant_id}/environments"
    answers = await asyncio.gather(*[office.call("POST", path, {"name": f"e{n}"}) for n in range(40)])
    assert {answer.status for answer in answers} == {201}
    assert len(await office.audit(tenant_id=office.tenant_id)) == 41
    verdict = await office.admin("GET", "/admin/audit/verify")
    assert (verdict["ok"], verdict["first_bad"]) == (True, None)


async def test_pages_follow_one_another(office: Office) -> None:
    for n in range(7):
        await office.admin("PATCH", f"/admin/tenants/{office.tenant_id}", {"name": f"n{n}"})
    path, cursor, seen = f"/admin/audit?tenant_id={office.tenant_id}&limit=3", "", []
    while True:
        page = await office.admin("GET", path + cursor)
        seen += [e["seq"] for e in page["entries"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert len(seen) == 8
    assert seen == sorted(set(seen), reverse=True)


async def test_every_entry_is_published_in_order(office: Office, stack: Stack) -> None:
    (head,) = await office.audit(limit=1)
    client = await nats.connect(stack.nats_url)
    try:
        stream = client.jetstream()

        async def published() -> int:
            return (await stream.stream_info("AUDIT")).state.messages

        await until(published, lambda count: count >= head["seq"])
        info = await stream.stream_info("AUDIT")
        bodies = [await stream.get_msg("AUDIT", seq) for seq in range(info.state.first_seq, info.state.last_seq + 1)]
    finally:
        await client.close()
    events = [msgspec.json.decode(body.data or b"", type=AuditRecorded) for body in bodies]
    entries = [msgspec.convert(event, Sealed, from_attributes=True) for event in events]
    assert first_bad(entries, 0, "0" * 64) is None


@pytest.mark.parametrize(
    "statement",
    [
        "update gateway.audit set actor = 'nobody' where seq = 1",
        "delete from gateway.audit where seq = 1",
        "truncate gateway.audit",
    ],
)
async def test_the_log_is_append_only(superuser: asyncpg.Connection, stack: Stack, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await superuser.execute(statement)


@pytest.mark.parametrize(
    ("forgery", "first_bad"),
    [
        ("update gateway.audit set actor = 'nobody' where seq = 3", 3),
        ("update gateway.audit set status = 200, hash = repeat('a', 64) where seq = 3", 3),
        ("update gateway.audit set after_sha256 = null where seq = 1", 1),
        ("update gateway.audit set time = time + interval '1 microsecond' where seq = 2", 2),
        ("delete from gateway.audit where seq = 3", 3),
        ("delete from gateway.audit where seq <= 2", 1),
        ("delete from gateway.audit where seq > 4", 5),
        ("delete from gateway.audit", 1),
    ],
)
async def test_a_forgery_by_a_superuser_is_found(make_stack: MakeStack, forgery: str, first_bad: int) -> None:
    stack = await make_stack(simulators=1, services=("scheduler", "billing", "gateway"))
    office = await Office.open(stack)
    await until(lambda: _published(stack), lambda seq: seq >= 5)
    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        await connection.execute("set session_replication_role = replica")  # past the triggers
        await connection.execute(forgery)
    finally:
        await connection.close()
    verdict = await office.admin("GET", "/admin/audit/verify")
    assert (verdict["ok"], verdict["first_bad"], verdict["entries"]) == (False, first_bad, first_bad - 1)


async def _published(stack: Stack) -> Any:
    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        return await connection.fetchval("select seq from gateway.audit_published")
    finally:
        await connection.close()
