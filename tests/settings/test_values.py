"""Sizes and addresses."""

import pytest

from proxy.settings.schema import Config
from proxy.settings.values import Address, parse_address

# fmt: off
SIZES = [("1024", 1024), (2048, 2048), ("2KB", 2000), ("1KiB", 1024), ("2 MiB", 2_097_152),
         ("3gib", 3_221_225_472), ("1TB", 10**12)]
ADDRESSES = [
    ("127.0.0.1:8080", Address("127.0.0.1", 8080), True),
    ("localhost:0",    Address("localhost", 0),    True),
    ("[::1]:65535",    Address("::1", 65535),      True),
    ("127.9.9.9:1",    Address("127.9.9.9", 1),    True),
    ("0.0.0.0:1",      Address("0.0.0.0", 1),      False),
    ("[::]:1",         Address("::", 1),           False),
    ("host.example:1", Address("host.example", 1), False),
]
NO_ADDRESSES = ["", ":1", "host", "host:", "host:x", "host:65536", "host:-1", "::1:1",
                "[::1", "[x]:1", "h:１"]
# fmt: on


@pytest.mark.parametrize(("written", "size_bytes"), SIZES)
def test_sizes(written: str | int, size_bytes: int) -> None:
    config = Config.model_validate({"server": {"max_body_bytes": written}})
    assert config.server.max_body_bytes == size_bytes


@pytest.mark.parametrize("written", ["", "1XB", "-5", "5.5MiB", "MiB", 1023, "9" * 40])
def test_no_sizes(written: str | int) -> None:
    with pytest.raises(ValueError, match="max_body_bytes"):
        Config.model_validate({"server": {"max_body_bytes": written}})


@pytest.mark.parametrize(("written", "address", "loopback"), ADDRESSES)
def test_addresses(written: str, address: Address, loopback: bool) -> None:
    assert parse_address(written) == address
    assert str(address) == written
    assert address.loopback is loopback


@pytest.mark.parametrize("written", NO_ADDRESSES)
def test_no_addresses(written: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(written)
