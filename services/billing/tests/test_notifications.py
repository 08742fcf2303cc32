"""Notifications reach a real mail server and a real HTTP receiver at least once, whatever fails on the way."""

import asyncio
import base64
import hashlib
import hmac
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import web
from aiosmtpd.controller import UnthreadedController

from billing import month_end, notice_store, senders
from billing.notice import Notice
from billing.notice_store import Channel, Due
from billing.senders import NotSent
from billing.settings import Settings
from common import bus
from common.db import Pool, transaction
from common.events import AuditRecorded, NodeLost, UsageRecorded
from common.ids import new_id

Ask = Callable[..., Awaitable[tuple[int, Any]]]
Eventually = Callable[..., Awaitable[Any]]
Record = Callable[..., UsageRecorded]
TENANT = UUID(int=1)
T = f"/admin/tenants/{TENANT}"
N = f"{T}/notifications"
OPERATORS_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()


class Receiver:
    """Answers what `answers` says, then 200; a float waits so many seconds first."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, list[int | float]] = {}
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((request.path, headers, await request.read()))
        waiting = self.answers.get(request.path) or [200]
        answer = waiting.pop(0)
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = 200
        return web.Response(status=answer, headers={"location": "/elsewhere"} if answer == 302 else {})

    def at(self, path: str, topic: str = "") -> list[tuple[dict[str, str], bytes]]:
        return [(h, body) for at, h, body in self.got if at == path and topic.encode() in body]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield found
    await runner.cleanup()


class Mailbox:
    def __init__(self) -> None:
        self.letters: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append(envelope)
        return "250 OK"


@pytest.fixture
async def mailbox() -> AsyncIterator[tuple[Mailbox, str]]:
    box = Mailbox()
    controller = UnthreadedController(box, hostname="127.0.0.1", port=0, loop=asyncio.get_running_loop())
    server = await controller._create_server()
    port = server.sockets[0].getsockname()[1]
    yield box, f"smtp://127.0.0.1:{port}"
    server.close()
    await server.wait_closed()


@pytest.fixture
def settings(postgres_dsn: str, nats_url: str, receiver: Receiver, mailbox: tuple[Mailbox, str]) -> Settings:
    return Settings(
        postgres_dsn=postgres_dsn,
        nats_url=nats_url,
        smtp_url=mailbox[1],
        mail_from="billing@example.com",
        notice_loopback=True,
        notice_first_pause=0.05,
        notice_timeout=1.0,
        operators_webhook_url=f"{receiver.url}/operators",
        operators_webhook_secret=OPERATORS_SECRET,
    )


def verified(secret: str, headers: dict[str, str], body: bytes) -> Any:
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    return msgspec.json.decode(body)


async def channel(ask: Ask, kind: str, target: str, **fields: Any) -> Any:
    status, made = await ask("POST", f"{N}/channels", {"kind": kind, "target": target, **fields})
    assert status == 201, made
    return made


async def test_thresholds_are_told_once_each_through_a_receiver_that_fails_at_first(
    service: Settings, ask: Ask, pool: Pool, put_price: Any, record: Record, send: Any, eventually: Eventually,
    receiver: Receiver, mailbox: tuple[Mailbox, str],
) -> None:  # fmt: skip
    await put_price()
    receiver.answers["/hook"] = [500, 2.0]  # refused, then too slow
    hook = await channel(ask, "webhook", f"{receiver.url}/hook")
    await channel(ask, "email", "owner@example.com", topics=["budget.threshold"])
    await channel(ask, "slack", f"{receiver.url}/slack")
    await channel(ask, "discord", f"{receiver.url}/discord", topics=["key.created"])
    await ask("PUT", f"{T}/budget", {"monthly_usd": "0.00005", "hard": False})
    await send(record())  # 0.00002685: over half

    async def arrived(topic: str, count: int = 1) -> bool:
        return len(receiver.at("/hook", topic)) >= count

    await eventually(lambda: arrived("budget.threshold", 3))
    tries = receiver.at("/hook")
    assert len({headers["webhook-id"] for headers, _ in tries}) == 1
    told = [verified(hook["secret"], headers, body) for headers, body in tries]
    assert told[0] == told[1] == told[2]
    assert (told[0]["type"], told[0]["data"]["percent"], told[0]["data"]["tenant_id"]) == (
        "budget.threshold", 50, str(TENANT),
    )  # fmt: skip

    await send(record())  # over all of it, by steps that are skipped

    async def letters() -> bool:
        return len(mailbox[0].letters) >= 2 and len(receiver.at("/slack")) >= 2

    await eventually(letters)
    first, second = (letter.content.decode() for letter in mailbox[0].letters)
    assert "Subject: 50 % of the monthly budget of the tenant is spent" in first
    assert "Subject: 100 % of the monthly budget of the tenant is spent" in second
    assert mailbox[0].letters[0].rcpt_tos == ["owner@example.com"]
    await eventually(lambda: arrived("budget.threshold", 4))
    # said again by every account that is told, and told no more
    for _ in range(3):
        await ask("PUT", f"{T}/budget", {"monthly_usd": "0.00005", "hard": False})

    async def marked() -> bool:
        deliveries = (await ask("GET", f"{N}/deliveries"))[1]["deliveries"]
        return len(deliveries) == 6 and all(one["sent_at"] for one in deliveries)

    await eventually(marked)
    assert (len(receiver.at("/hook")), len(receiver.at("/slack")), len(mailbox[0].letters)) == (4, 2, 2)
    assert receiver.at("/discord") == []

    # by hand, with the id that it had
    id = tries[0][0]["webhook-id"].removeprefix("msg_")
    status, queued = await ask("POST", f"{N}/deliveries/{id}/replay")
    assert (status, queued["channels"]) == (202, 3)
    await eventually(lambda: arrived("budget.threshold", 5))
    assert receiver.at("/hook")[-1][0]["webhook-id"] == f"msg_{id}"
    _, shown = await ask("GET", N)
    assert hook["secret"] not in str(shown)
    assert "/slack" not in str(shown), "a Slack URL is a secret"


async def test_billing_killed_between_sending_and_marking_sends_again_with_the_same_id(
    spawn: Any, settings: Settings, pool: Pool, ask: Ask, eventually: Eventually, receiver: Receiver
) -> None:
    receiver.answers["/hook"] = [0.8]
    process = spawn()
    await channel(ask, "webhook", f"{receiver.url}/hook")
    async with transaction(pool) as connection:
        await notice_store.tell(connection, [Notice(topic="invoice.ready", key="i1", tenant_id=TENANT)])

    async def got(count: int) -> bool:
        return len(receiver.at("/hook")) >= count

    await eventually(lambda: got(1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert await pool.fetchval("select count(*) from billing.deliveries where sent_at is not null") == 0
    spawn()
    await eventually(lambda: got(2))
    (one, body), (two, again) = receiver.at("/hook")[:2]
    assert (one["webhook-id"], body) == (two["webhook-id"], again)

    async def marked() -> bool:
        return bool(await pool.fetchval("select count(*) from billing.deliveries where sent_at is not null"))

    await eventually(marked)


async def test_events_of_others_are_told_to_whom_they_concern(
    service: Settings, ask: Ask, client: bus.Bus, eventually: Eventually, receiver: Receiver
) -> None:
    hook = await channel(ask, "webhook", f"{receiver.url}/hook")
    now = datetime.now(UTC)
    audited = AuditRecorded(
        id=new_id(), time=now, seq=1, actor="user:a@example.com", action="POST /admin/api-keys", target="key-1",
        tenant_id=TENANT, status=201, address="", request_id="", prev_hash="", hash="",
    )  # fmt: skip
    lost = NodeLost(id=new_id(), time=now, node_id="node-1", reason="it is silent")
    for again in ("", "again"):
        await client.publish("audit.recorded.v1", bus.encode(audited), f"{audited.id}{again}")
        await client.publish("node.lost.v1", bus.encode(lost), f"{lost.id}{again}")

    async def both() -> bool:
        return bool(receiver.at("/hook") and receiver.at("/operators"))

    await eventually(both)
    (key,) = [verified(hook["secret"], headers, body) for headers, body in receiver.at("/hook")]
    assert (key["type"], key["data"]["key_id"]) == ("key.created", "key-1")
    (node,) = [verified(OPERATORS_SECRET, headers, body) for headers, body in receiver.at("/operators")]
    assert (node["type"], node["data"]["node_id"]) == ("node.lost", "node-1")


async def test_missing_prices_and_ready_invoices_are_told_once(
    service: Settings, ask: Ask, pool: Pool, put_price: Any, record: Record, send: Any, settled: Any,
    eventually: Eventually, receiver: Receiver,
) -> None:  # fmt: skip
    await channel(ask, "webhook", f"{receiver.url}/hook")
    await put_price(since=timedelta(days=34))
    await send(record(model="new"), record(model="new"), record())
    await settled()
    now = datetime.now(UTC)
    next_month = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert await month_end.tell_some(pool, next_month + timedelta(hours=5)) == 0, "late records may come"
    assert await month_end.tell_some(pool, next_month + timedelta(hours=7)) == 1
    assert await month_end.tell_some(pool, next_month + timedelta(hours=8)) == 0

    async def told() -> bool:
        return bool(receiver.at("/hook", "invoice.ready") and receiver.at("/operators", "price.missing"))

    await eventually(told)
    (price,) = [msgspec.json.decode(body) for _, body in receiver.at("/operators")]
    assert price["data"]["model"] == "new"
    (invoice,) = [msgspec.json.decode(body) for _, body in receiver.at("/hook")]
    assert invoice["data"]["month"] == f"{now:%Y-%m}"
    _, listed = await ask("GET", "/admin/invoices", tenant_id=TENANT, month=f"{now:%Y-%m}")
    assert listed["invoices"][0]["due_usd"] == invoice["data"]["amount_usd"]
    async with transaction(pool) as connection:
        await notice_store.forget(connection, 0)
    assert await pool.fetchval("select count(*) from billing.notices") == 0


async def test_who_is_gone_is_switched_off_and_the_others_hear_of_it(
    service: Settings, ask: Ask, eventually: Eventually, receiver: Receiver
) -> None:
    receiver.answers["/gone"] = [410]
    gone = await channel(ask, "webhook", f"{receiver.url}/gone")
    await channel(ask, "webhook", f"{receiver.url}/hook", topics=["channel.disabled"])
    assert (await ask("POST", f"{N}/channels/{gone['id']}/test"))[0] == 202

    async def told() -> bool:
        return bool(receiver.at("/hook", "channel.disabled") and receiver.at("/operators", "channel.disabled"))

    await eventually(told)
    _, shown = await ask("GET", N)
    assert [one["enabled"] for one in shown["channels"]] == [False, True]
    assert (await ask("POST", f"{N}/channels/{gone['id']}/test"))[0] == 409
    _, back = await ask("PATCH", f"{N}/channels/{gone['id']}", {"enabled": True, "topics": ["invoice.ready"]})
    assert (back["enabled"], back["topics"]) == (True, ["invoice.ready"])
    assert (await ask("DELETE", f"{N}/channels/{gone['id']}"))[0] == 200
    assert len((await ask("GET", N))[1]["channels"]) == 1


async def test_a_channel_that_fails_for_days_is_switched_off_and_the_others_hear_of_it(
    service: Settings, ask: Ask, pool: Pool, eventually: Eventually, receiver: Receiver
) -> None:
    receiver.answers["/dead"] = [500] * 100
    dead = await channel(ask, "webhook", f"{receiver.url}/dead")
    for days, enabled in ((4, True), (6, False)):
        await pool.execute("update billing.channels set failing_since = now() - make_interval(days => $1)", days)
        before = len(receiver.at("/dead"))
        await ask("POST", f"{N}/channels/{dead['id']}/test")

        async def tried(before: int = before) -> bool:
            return len(receiver.at("/dead")) > before

        await eventually(tried)

        async def shown(enabled: bool = enabled) -> bool:
            return bool((await ask("GET", N))[1]["channels"][0]["enabled"] is enabled)

        await eventually(shown)

    async def told() -> bool:
        return bool(receiver.at("/operators", "answered 500"))

    await eventually(told)


async def test_a_bad_channel_is_refused(service: Settings, ask: Ask) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"kind": "webhook", "target": "http://10.0.0.1/"}, "target"),
        ({"kind": "webhook", "target": "https://169.254.169.254/"}, "target"),
        ({"kind": "email", "target": "a@b.c, d@e.f"}, "target"),
        ({"kind": "email", "target": "a@b.c\r\nBcc: d@e.f"}, "target"),
        ({"kind": "pager", "target": "x"}, "kind"),
        ({"kind": "email", "target": "a@b.c", "topics": ["gossip"]}, "topics[0]"),
    ]
    for body, param in bad:
        status, answer = await ask("POST", f"{N}/channels", body)
        assert (status, answer["error"]["param"]) == (400, param)
    for path in ("channels/x/test", f"channels/{new_id()}/test", f"deliveries/{new_id()}/replay"):
        assert (await ask("POST", f"{N}/{path}"))[0] == 404


async def test_no_name_leads_inside_and_no_redirect_is_followed(receiver: Receiver) -> None:
    def due(target: str) -> Due:
        hook = Channel(
            id=new_id(), tenant_id=TENANT, kind="webhook", target=target, secret=OPERATORS_SECRET, topics=(),
            created_at=datetime.now(UTC), created_by="t",
        )  # fmt: skip
        return Due(
            notice_id=new_id(), topic="channel.test", tenant_id=TENANT, facts={}, created_at=datetime.now(UTC),
            attempts=1, channel=hook,
        )  # fmt: skip

    port = receiver.url.rpartition(":")[2]
    async with senders.open_senders(None, "a@example.com", 2.0, False) as guarded:
        # a name is no address: only what it resolves to tells
        with pytest.raises(NotSent, match="no answer"):
            await guarded.send(due(f"https://localhost:{port}/hook"))
    receiver.answers["/moved"] = [302]
    async with senders.open_senders(None, "a@example.com", 2.0, True) as local:
        with pytest.raises(NotSent, match="answered 302"):
            await local.send(due(f"{receiver.url}/moved"))
    assert [path for path, *_ in receiver.got] == ["/moved"]
