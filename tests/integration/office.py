"""One tenant, seen from the admin's and its people's side; no engine."""

import ipaddress
import uuid
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from stack.stack import Stack


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: Any  # Any: the JSON of any endpoint
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def code(self) -> str | None:
        """Of an error."""
        return self.body["error"]["code"] if isinstance(self.body, dict) and "error" in self.body else None


class Office:
    def __init__(self, stack: Stack, tenant_id: str) -> None:
        self.stack = stack
        self.tenant_id = tenant_id

    @classmethod
    async def open(cls, stack: Stack) -> "Office":
        tenant = await stack.admin("POST", "/admin/tenants", {"name": "t", "email": "t@example.com"})
        return cls(stack, tenant["id"])

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.call(method, path, body)
        assert answer.status < 300, (method, path, answer)
        return answer.body

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        address: str | None = None,
    ) -> Answer:
        """With the root token and from an address of its own, unless told otherwise; bytes are sent as they are."""
        headers = {"X-Forwarded-For": address or some_address()}
        token = self.stack.admin_token if token is None else token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        sent: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, URL(f"{self.stack.gateway_url}{path}", encoded=True), **sent) as response,
        ):
            text = await response.text()
            return Answer(
                response.status,
                msgspec.json.decode(text) if text and "json" in response.content_type else text or None,
                {k.lower(): v for k, v in response.headers.items()},
            )

    async def audit(self, **query: object) -> list[dict[str, Any]]:
        """The newest first."""
        text = "&".join(f"{name}={value}" for name, value in query.items())
        found: list[dict[str, Any]] = (await self.admin("GET", f"/admin/audit?{text}"))["entries"]
        return found


def some_address() -> str:
    """One that nobody else has; throttling is by /64."""
    digits = uuid.uuid4().hex
    return str(ipaddress.ip_address(f"2001:db8:{digits[:4]}:{digits[4:8]}::1"))
