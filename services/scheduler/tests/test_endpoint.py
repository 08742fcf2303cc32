import pytest

from common.errors import InvalidRequest
from scheduler.endpoint import normalised


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://10.0.0.1:8000", "http://10.0.0.1:8000"),
        ("http://10.0.0.1:8000/", "http://10.0.0.1:8000"),
        ("HTTP://Gpu-1.Example.COM:8000", "http://gpu-1.example.com:8000"),
        ("http://node.:8000", "http://node:8000"),
        ("http://node:80", "http://node"),
        ("https://node:443", "https://node"),
        ("https://node:80", "https://node:80"),
        ("http://node_1", "http://node_1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
    ],
)
def test_one_engine_has_one_spelling(text: str, expected: str) -> None:
    assert normalised(text) == expected
    assert normalised(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1:8000",
        "ftp://node",
        "file:///etc/passwd",
        "http://",
        "http://:8000",
        "http://node:0",
        "http://node:65536",
        "http://node:port",
        "http://user@node",
        "http://user:secret@node",
        "http://node/v1",
        "http://node?a=b",
        "http://node?",
        "http://node#x",
        "http://no de",
        "http://node\r\nHost: other",
        "http://-node",
        "http://nöde",
        "http://2130706433",
        "http://0x7f.1",
        "http://127.1",
        "http://0.0.0.0:8000",
        "http://169.254.169.254",
        "http://[fe80::1]",
        "http://[::",
        "http://a..b",
        "http://" + "a" * 300,
    ],
)
def test_anything_but_an_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        normalised(text)
    assert caught.value.param == "endpoint"
    assert "secret" not in caught.value.message
