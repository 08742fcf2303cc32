"""The client's address is the socket's, or what a proxy of ours says."""

import pytest

from common.errors import SettingsError
from gateway import addresses

TRUSTED = addresses.networks("10.0.0.0/8, 2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7", "10.0.0.3"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("2001:db8:1::1", ["[2001:db8:2::1]:4711"], "2001:db8:2::1"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["rubbish"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["198.51.100.7"], "unknown"),
        ("", [], "unknown"),
    ],
)
def test_whose_word_is_taken(peer: str | None, forwarded_for: list[str], expected: str) -> None:
    assert addresses.client(peer, forwarded_for, TRUSTED) == expected


def test_wrong_ranges_stop_the_boot() -> None:
    assert addresses.networks("") == ()
    with pytest.raises(SettingsError, match="GATEWAY_TRUSTED_PROXIES"):
        addresses.networks("10.0.0.1/8")
