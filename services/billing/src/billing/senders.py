"""The ways out: one try to send a notice to a channel, by HTTP or SMTP; to public addresses where a tenant named it."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.errors import MessageError
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import aiohttp
import aiosmtplib
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from billing import notice, reachable, signature
from billing.notice_store import Due
from common.errors import InvalidRequest, SettingsError


class NotSent(Exception):
    """It may have arrived all the same; `str(error)` holds nothing of the target. `gone`: it wants no more."""

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


class Mail(msgspec.Struct, frozen=True):
    host: str
    port: int
    sender: str
    user: str | None = None
    password: str | None = None
    tls: bool = False
    """From the first byte; otherwise where the server offers it."""


class Senders:
    def __init__(
        self,
        guarded: aiohttp.ClientSession,
        trusted: aiohttp.ClientSession,
        mail: Mail | None,
        timeout: float,
        loopback: bool,
    ) -> None:
        self._guarded = guarded
        self._trusted = trusted
        self._mail = mail
        self._timeout = timeout
        self.loopback = loopback

    @property
    def mails(self) -> bool:
        return self._mail is not None

    async def send(self, due: Due) -> None:
        """Raises NotSent."""
        told = notice.message(due.topic, due.facts)
        channel = due.channel
        if channel.kind == "email":
            await self._mailed(due, told)
        elif channel.kind == "slack":
            await self._posted(due, notice.as_slack(told), {})
        elif channel.kind == "discord":
            await self._posted(due, notice.as_discord(told), {})
        else:
            body = notice.as_event(due.topic, due.tenant_id, due.created_at, due.facts)
            headers = signature.headers(channel.secret or "", due.notice_id, int(time.time()), body)
            await self._posted(due, body, headers)

    async def _posted(self, due: Due, body: bytes, headers: dict[str, str]) -> None:
        ours = due.channel.tenant_id is None
        session = self._trusted if ours else self._guarded
        try:
            if not ours:
                reachable.check(due.channel.kind, due.channel.target, loopback=self.loopback)
            async with session.post(
                due.channel.target,
                data=body,
                headers={**headers, "content-type": "application/json"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            ) as response:
                status = response.status
        except InvalidRequest as error:
            raise NotSent(error.message) from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # the error itself may quote the URL, which may be a secret
            raise NotSent(f"no answer: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise NotSent(f"answered {status}", gone=status == 410)

    async def _mailed(self, due: Due, told: notice.Message) -> None:
        mail = self._mail
        if mail is None:
            raise NotSent("e-mail is not set up")
        try:
            async with asyncio.timeout(self._timeout):  # of all; aiosmtplib's own is of each command
                await aiosmtplib.send(
                    _letter(due, told, mail.sender),
                    hostname=mail.host,
                    port=mail.port,
                    username=mail.user,
                    password=mail.password,
                    use_tls=mail.tls,
                    timeout=self._timeout,
                )
        except (aiosmtplib.SMTPException, MessageError, OSError, TimeoutError, ValueError) as error:
            raise NotSent(f"not mailed: {type(error).__name__}") from None


class _Public(AbstractResolver):
    """Names resolve to public addresses or not at all. The connection goes to the address that was looked at."""

    def __init__(self, loopback: bool) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._loopback = loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [at for at in found if reachable.public(at["host"], loopback=self._loopback)]
        if not allowed:
            raise OSError("no public address")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


@asynccontextmanager
async def open_senders(smtp_url: str | None, sender: str, timeout: float, loopback: bool) -> AsyncIterator[Senders]:
    """`timeout` seconds for each try. Raises SettingsError for an SMTP URL that is none."""
    connector = aiohttp.TCPConnector(
        resolver=_Public(loopback), use_dns_cache=False, limit_per_host=4, force_close=True
    )
    jar = aiohttp.DummyCookieJar()
    async with (
        aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=jar) as guarded,
        aiohttp.ClientSession(cookie_jar=jar) as trusted,
    ):
        yield Senders(guarded, trusted, mail_of(smtp_url, sender) if smtp_url else None, timeout, loopback)


def mail_of(url: str, sender: str) -> Mail:
    """`smtp://[user:password@]host[:port]`, or `smtps://…`. Raises SettingsError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SettingsError("SMTP_URL is not a URL") from None
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise SettingsError("SMTP_URL must be smtp://host or smtps://host")
    tls = parts.scheme == "smtps"
    return Mail(
        host=parts.hostname,
        port=port or (465 if tls else 587),
        sender=sender,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
    )


def jitter() -> float:
    return random.random()  # noqa: S311  spreads retries, guards nothing


def _letter(due: Due, told: notice.Message, sender: str) -> EmailMessage:
    letter = EmailMessage()
    letter["From"] = sender
    letter["To"] = due.channel.target
    letter["Subject"] = told.title
    # the same at each try: mail programs show one of them
    letter["Message-ID"] = f"<msg_{due.notice_id}.{due.channel.id}@{sender.rpartition('@')[2]}>"
    letter["Date"] = due.created_at
    letter["X-Webhook-Id"] = f"msg_{due.notice_id}"
    letter.set_content(told.text + "\n")
    letter.add_alternative(notice.as_html(told), subtype="html")
    return letter
