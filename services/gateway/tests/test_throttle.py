"""One address may fail so often; then it waits, and nobody else does."""

import pytest

from common.errors import Overloaded
from gateway.throttle import Throttle, network


def test_after_ten_failures_one_more_every_six_seconds() -> None:
    bucket = Throttle()
    for _ in range(10):
        bucket.check("192.0.2.1", 100.0)
        bucket.failed("192.0.2.1", 100.0)
    with pytest.raises(Overloaded) as refused:
        bucket.check("192.0.2.1", 100.5)
    assert (refused.value.retry_after, refused.value.status) == (6, 429)
    bucket.check("192.0.2.2", 100.5)
    bucket.check("192.0.2.1", 106.0)
    bucket.failed("192.0.2.1", 106.0)
    with pytest.raises(Overloaded):
        bucket.check("192.0.2.1", 106.1)
    bucket.check("192.0.2.1", 1000.0)


def test_calls_with_a_right_credential_take_nothing() -> None:
    bucket = Throttle(burst=1)
    for now in range(1000):
        bucket.check("192.0.2.1", float(now) / 1000)


def test_a_subnet_of_ipv6_is_one_address_and_memory_is_bounded() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == "192.0.2.1"
    bucket = Throttle(burst=1, most=3)
    for last in range(5):
        bucket.failed(f"192.0.2.{last}", 0.0)
    bucket.check("192.0.2.0", 0.0)
    with pytest.raises(Overloaded):
        bucket.check("192.0.2.4", 0.0)
