"""Which operator may do what, and which secrets are whose."""

import secrets

import pytest

from common.errors import Forbidden
from gateway import keys
from gateway.scopes import ROOT, Principal, check


@pytest.mark.parametrize(
    ("scopes", "method", "path", "allowed"),
    [
        (["*"], "DELETE", "operators/1", True),
        (["*:read"], "GET", "operators", False),
        (["*:read"], "GET", "prices", True),
        (["*:read"], "PUT", "prices", False),
        (["keys"], "POST", "api-keys", True),
        (["keys:read"], "GET", "api-keys", True),
        (["keys:read"], "DELETE", "api-keys/1", False),
        (["keys"], "GET", "tenants", False),
        (["tenants"], "POST", "tenants/1/credits", True),
        (["usage:read"], "POST", "reconcile", False),
        (["deployments"], "GET", "launches/1/logs", True),
        (["audit:read"], "GET", "audit/verify", True),
        (["dead-letters"], "POST", "dead-letters/1/replay", True),
        (["tenants", "keys", "prices", "usage", "nodes", "deployments", "audit", "dead-letters"], "GET", "new", False),
        (["keys"], "GET", "api-keysx", False),
        ([], "GET", "", False),
    ],
)
def test_a_scope_opens_what_it_names(scopes: list[str], method: str, path: str, allowed: bool) -> None:
    principal = Principal("operator:x", frozenset(scopes))
    if allowed:
        check(principal, method, path)
    else:
        with pytest.raises(Forbidden):
            check(principal, method, path)


def test_the_root_token_opens_everything() -> None:
    check(ROOT, "DELETE", "whatever/there/is")


def test_an_operators_token_is_no_api_key() -> None:
    token = keys.make(secrets.token_bytes(27), "clo")
    assert keys.plausible(token, "clo")
    assert not keys.plausible(token)
    assert not keys.plausible(f"clk_{token[4:-1]}", "clo")
