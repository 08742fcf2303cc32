"""Keys and the operator's token: what passes, what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SettingsError
from gateway import admin_token, keys
from gateway.admin_token import AdminToken, check_strength

GOOD = "Zk3v9QwLr7Tn2XsBf6HdJp4McYg8Ea5U"
OTHER = "bR8nV2kXw5Lq9Zt3Ys7Fj4Hc6Gd1Mp0A"


@given(st.binary(min_size=27, max_size=27))
def test_a_key_is_plausible_and_a_changed_one_is_not(entropy: bytes) -> None:
    key = keys.make(entropy)
    assert keys.plausible(key)
    for at in (4, 20, 45):
        changed = key[:at] + ("a" if key[at] != "a" else "b") + key[at + 1 :]
        assert not keys.plausible(changed)


@pytest.mark.parametrize("noise", ["", "clk_", "sk-" + "a" * 43, "clk_" + "ä" * 42, "clk_" + "0" * 41 + "\n"])
def test_noise_is_no_key(noise: str) -> None:
    assert not keys.plausible(noise)


@pytest.mark.parametrize(
    "weak", ["", "short", "a" * 64, "changeme" * 5, "ab" * 20, "admin-token-secret-password-admin", "0123456789" * 2]
)
def test_a_weak_admin_token_stops_the_boot_by_name(weak: str) -> None:
    with pytest.raises(SettingsError, match="ADMIN_API_TOKEN"):
        check_strength(weak, "ADMIN_API_TOKEN")


def test_only_the_current_and_the_previous_admin_token_open() -> None:
    token = AdminToken(GOOD, OTHER)
    assert token.matches(admin_token.given(f"Bearer {GOOD}", None))
    assert token.matches(admin_token.given(f"bearer {OTHER}", None))
    assert token.matches(admin_token.given(None, GOOD))
    for authorization, header in [
        (None, None),
        ("Bearer ", None),
        ("Bearer anything", None),
        (GOOD, None),
        (f"Bearer {GOOD}x", None),
        (None, GOOD[:-1]),
        (None, ""),
        ("Bearer \udcff", None),
    ]:
        assert not token.matches(admin_token.given(authorization, header))
