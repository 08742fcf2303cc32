"""Notices: their words in each kind of channel, their signature, their retries, and where they may go."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import msgspec
import pytest

from billing import notice, reachable, signature
from billing.incidents import of_audit, of_launch, of_node
from billing.notice import Topic, message
from billing.senders import mail_of
from common.errors import InvalidRequest, SettingsError
from common.events import AuditRecorded, LaunchFailed, NodeLost
from common.ids import new_id

NOW = datetime(2026, 11, 24, tzinfo=UTC)
EVIL = "<script>alert(1)</script> <!channel> @everyone [x](http://e) & {percent}\r\nBcc: all@example.com"


@pytest.mark.parametrize("topic", get_args(Topic))
def test_every_topic_has_words_even_without_facts(topic: Topic) -> None:
    told = message(topic, {})
    assert told.title
    assert "{" not in told.title + told.text


def test_what_others_named_becomes_no_markup_anywhere() -> None:
    told = message("launch.failed", {"model": EVIL, "reason": "x" * 10_000})
    assert "\n" not in told.text
    assert len(told.text) < 1200
    assert "<script" not in notice.as_html(told)
    slack = msgspec.json.decode(notice.as_slack(told))
    assert "<" not in slack["text"] + slack["blocks"][0]["text"]["text"]
    discord = msgspec.json.decode(notice.as_discord(told))
    assert discord["allowed_mentions"] == {"parse": []}
    assert r"\[x\]\(http" in discord["content"]


@pytest.mark.parametrize(
    ("spent", "limit", "percent"),
    [(0, 0, None), (49, 100, None), (50, 100, 50), (79, 100, 50), (80, 100, 80), (99, 100, 80), (250, 100, 100)],
)
def test_the_highest_threshold_reached(spent: int, limit: int, percent: int | None) -> None:
    assert notice.threshold(spent, limit) == percent


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of its specification's reference implementation."""
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    id = UUID(int=7)
    found = signature.headers(secret, id, 1614265330, b'{"test": 2432232314}')
    expected = hmac.new(b"k" * 32, f"msg_{id}.1614265330.".encode() + b'{"test": 2432232314}', hashlib.sha256)
    assert found["webhook-signature"] == "v1," + base64.b64encode(expected.digest()).decode()
    assert (found["webhook-id"], found["webhook-timestamp"]) == (f"msg_{id}", "1614265330")
    assert signature.secret(b"k" * 32) == secret


def test_tries_go_on_for_days_and_end() -> None:
    pauses = [signature.pause(tries, 5.0, 0.5) for tries in range(1, 12)]
    assert pauses[:2] == [5.0, 30.0]
    assert pauses[-1] is None
    assert 3 * 86_400 < sum(pause for pause in pauses if pause) < 4 * 86_400
    assert signature.pause(1, 5.0, 0.0) == 4.0


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        *((address, False) for address in (
            "127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
            "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
            "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
        )),
    ],
)  # fmt: skip
def test_only_public_addresses_are_reached(address: str, allowed: bool) -> None:
    assert reachable.public(address, loopback=False) is allowed


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "https://", "https://user:pw@example.com/", "https://127.0.0.1/",
        "https://[::1]/", "https://169.254.169.254/latest", "https://example.com:99999/", "https://exa mple.com",
        "javascript:alert(1)", "https://[::1", "https://example.com/\n",
    ],
)  # fmt: skip
def test_a_bad_target_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        reachable.check("webhook", url, loopback=False)


def test_slack_and_discord_are_where_they_are() -> None:
    reachable.check("webhook", "https://example.com:8443/hook?x=1", loopback=False)
    reachable.check("slack", "https://hooks.slack.com/services/T/B/x", loopback=False)
    with pytest.raises(InvalidRequest, match="must be at"):
        reachable.check("slack", "https://example.com/services", loopback=False)
    reachable.check("slack", "http://127.0.0.1:5/services", loopback=True)
    with pytest.raises(InvalidRequest):
        reachable.check("webhook", "http://10.0.0.1/", loopback=True)


def test_an_smtp_url_is_read_and_a_wrong_one_stops_the_boot() -> None:
    mail = mail_of("smtps://me%40x:p%3Aw@mail.example.com", "from@example.com")
    assert (mail.host, mail.port, mail.user, mail.password, mail.tls) == (
        "mail.example.com", 465, "me@x", "p:w", True,
    )  # fmt: skip
    for url in ("mail.example.com", "http://x", "smtp://:25", "smtp://x:y"):
        with pytest.raises(SettingsError, match="SMTP_URL"):
            mail_of(url, "from@example.com")


def audited(action: str, status: int, at: datetime = NOW) -> bytes:
    event = AuditRecorded(
        id=new_id(), time=at, seq=1, actor="root", action=action, target="k", tenant_id=UUID(int=1), status=status,
        address="", request_id="", prev_hash="", hash="",
    )  # fmt: skip
    return msgspec.json.encode(event)


@pytest.mark.parametrize(
    ("action", "status", "topic"),
    [
        ("POST /admin/api-keys", 201, "key.created"),
        ("POST /account/tenants/{tenant_id}/api-keys", 201, "key.created"),
        ("POST /admin/api-keys/{key_id}/rotate", 201, "key.created"),
        ("DELETE /account/tenants/{tenant_id}/api-keys/{key_id}", 204, "key.revoked"),
        ("DELETE /admin/api-keys/{key_id}", 404, None),
        ("PATCH /admin/api-keys/{key_id}", 200, None),
        ("POST /admin/tenants", 201, None),
    ],
)
def test_keys_are_told_of_from_the_audit_log(action: str, status: int, topic: str | None) -> None:
    found = of_audit(audited(action, status), NOW)
    assert (found.topic if found else None) == topic


def test_what_happened_days_ago_is_not_told_when_a_stream_is_read_anew() -> None:
    assert of_audit(audited("POST /admin/api-keys", 201, datetime(2026, 11, 20, tzinfo=UTC)), NOW) is None
    lost = NodeLost(id=new_id(), time=NOW, node_id="n", reason="silent")
    assert of_node(msgspec.json.encode(lost), datetime(2026, 11, 29, tzinfo=UTC)) is None
    found = of_node(msgspec.json.encode(lost), NOW)
    assert found is not None
    assert (found.tenant_id, found.facts) == (None, {"node_id": "n", "reason": "silent"})
    launch = LaunchFailed(
        id=new_id(), time=NOW, launch_id=new_id(), deployment_id=new_id(), model="m", cluster="c", cloud="aws",
        region="r", accelerator="L4", spot=True, failure="capacity", reason="there is none",
    )  # fmt: skip
    told = of_launch(msgspec.json.encode(launch), NOW)
    assert told is not None
    again = msgspec.structs.replace(launch, id=new_id(), launch_id=new_id(), time=NOW + timedelta(minutes=59))
    assert getattr(of_launch(msgspec.json.encode(again), NOW), "key", None) == told.key, "one an hour"
    assert message(told.topic, told.facts).text == "The launch of m on L4 in r (c) failed: there is none"
