"""Bad input gets the status and the code of the contract, names the field, and leaves no usage record."""

import io
from typing import Any

import aiohttp
import pytest
from integration.shop import Shop, until

NOBODY = "019f0000-0000-7000-8000-000000000000"
GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
CASES = [
    (b"{", 400, "invalid_request", None),
    (b"", 400, "invalid_request", None),
    ({**GOOD, "max_tokens": "many"}, 400, "invalid_request", "max_tokens"),
    ({**GOOD, "max_tokens": -1}, 400, "invalid_request", "max_tokens"),
    ({**GOOD, "n": 10**9}, 400, "invalid_request", "n"),
    ({**GOOD, "temperature": "hot"}, 400, "invalid_request", None),
    ({**GOOD, "messages": []}, 400, "invalid_request", None),
    ({**GOOD, "messages": "hi"}, 400, "invalid_request", "messages"),
    ({**GOOD, "stream_options": {"include_usage": True}}, 400, "invalid_request", "stream_options"),
    ({**GOOD, "messages": [{"role": "user", "content": "word " * 20_000}]}, 400, "invalid_request", None),
    ({**GOOD, "model": "no/such-model"}, 404, "model_not_found", "model"),
    (b'{"model":"' + b"x" * (11 * 1024 * 1024) + b'"}', 413, "request_too_large", None),
]


async def post(shop: Shop, body: Any, key: str | None, stream: bool = False) -> tuple[int, dict[str, Any]]:
    if isinstance(body, dict):
        body = {"model": shop.model, "stream": stream, **body}
        if stream:
            body.pop("stream_options", None)
    sent = {"json": body} if isinstance(body, dict) else {"data": io.BytesIO(body)}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key is not None else {})
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{shop.url}/v1/chat/completions", headers=headers, **sent) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(("body", "status", "code", "param"), CASES)
async def test_a_wrong_body(shop: Shop, body: Any, status: int, code: str, param: str | None) -> None:
    got, answer = await post(shop, body, shop.key)
    assert (got, answer["error"]["code"]) == (status, code), answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    if param is not None:
        assert answer["error"]["param"] == param
    await nothing_but_one_good_request_is_billed(shop)


async def test_an_error_of_the_engine_before_the_first_token_has_its_status(shop: Shop) -> None:
    too_long = {**GOOD, "messages": [{"role": "user", "content": "word " * 20_000}]}
    status, answer = await post(shop, too_long, shop.key, stream=True)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    await nothing_but_one_good_request_is_billed(shop)


@pytest.mark.parametrize("key", [None, "", "sk-other", "clk_" + "0" * 42])
async def test_a_wrong_key(shop: Shop, key: str | None) -> None:
    status, answer = await post(shop, GOOD, key)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


async def test_a_revoked_key_is_refused_within_a_second(shop: Shop) -> None:
    created = await shop.admin("POST", "/admin/api-keys", {"tenant_id": shop.tenant_id, "name": "k2"})
    assert (await post(shop, GOOD, created["key"]))[0] == 200
    await shop.admin("DELETE", f"/admin/api-keys/{created['id']}")
    _, answer = await until(lambda: post(shop, GOOD, created["key"]), lambda got: got[0] == 401, deadline=1)
    assert answer["error"]["code"] == "invalid_api_key"


async def test_a_suspended_tenant_and_a_model_outside_the_keys_list(shop: Shop) -> None:
    new = {"tenant_id": shop.tenant_id, "name": "k2", "models": ["another"]}
    created = await shop.admin("POST", "/admin/api-keys", new)
    status, answer = await post(shop, GOOD, created["key"])
    assert (status, answer["error"]["code"]) == (403, "model_not_allowed")
    await shop.admin("PATCH", f"/admin/tenants/{shop.tenant_id}", {"status": "suspended"})
    _, answer = await until(lambda: post(shop, GOOD, shop.key), lambda got: got[0] == 403, deadline=1)
    assert answer["error"]["code"] == "tenant_suspended"
    await shop.admin("PATCH", f"/admin/tenants/{shop.tenant_id}", {"status": "active"})
    await until(lambda: post(shop, GOOD, shop.key), lambda got: got[0] == 200, deadline=1)


async def test_a_model_id_may_hold_a_slash(shop: Shop) -> None:
    assert "/" in shop.model
    assert (await shop.call("GET", f"/v1/models/{shop.model}"))[1]["id"] == shop.model
    status, answer = await shop.call("GET", "/v1/models/no/such")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/admin/tenants", {"name": "x"}, 400, "email"),
        ("POST", "/admin/tenants", {"name": "", "email": "a@b"}, 400, "name"),
        ("POST", "/admin/api-keys", {"tenant_id": "x", "name": "k"}, 400, "tenant_id"),
        ("POST", "/admin/api-keys", {"tenant_id": NOBODY, "name": "k"}, 404, "tenant_id"),
        ("PUT", "/admin/prices", {"model": "m", "input_usd_per_million": -1}, 400, None),
        ("PUT", "/admin/prices", {"model": "m", "input_usd_per_million": "free"}, 400, None),
        ("POST", "/admin/nodes", {"endpoint": "file:///etc/passwd"}, 400, "endpoint"),
        ("GET", "/admin/usage?group_by=planet", None, 400, "group_by"),
        ("GET", "/admin/nothing", None, 404, None),
        ("DELETE", "/admin/tenants", None, 405, None),
    ],
)  # fmt: skip
async def test_a_wrong_admin_call(
    shop: Shop, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    got, answer = await shop.call(method, path, body, shop.stack.admin_token)
    assert got == status, answer
    if param is not None:
        assert answer["error"]["param"] == param


@pytest.mark.parametrize("token", ["", "x", "Bearer", "changeme"])
@pytest.mark.parametrize("path", ["/admin/tenants", "/admin/nodes", "/admin/usage", "/admin/nothing"])
async def test_the_admin_door_is_shut_without_the_token(shop: Shop, token: str, path: str) -> None:
    status, answer = await shop.call("GET", path, token=token or "-")
    assert (status, answer["error"]["code"]) == (401, "invalid_admin_token")


async def nothing_but_one_good_request_is_billed(shop: Shop) -> None:
    assert (await post(shop, GOOD, shop.key))[0] == 200
    (row,) = await shop.rows(1)
    assert (row["outcome"], row["output_tokens"]) == ("completed", 2)
