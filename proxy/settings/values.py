"""Small values of the file: sizes with units, listen addresses, time zones."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
_SIZE = re.compile(r"([0-9]{1,15})\s?([A-Za-z]{0,3})")
_NO_ZONES = frozenset({"Factory", "localtime", "posix", "posixrules", "right"})  # of the machine
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None or found[2].lower() not in _UNITS:
        raise ValueError("must be a number of bytes, or a size such as 512MiB or 2GiB")
    return int(found[1]) * _UNITS[found[2].lower()]


def _zone(value: str) -> str:
    if not _ZONE.fullmatch(value):
        raise ValueError("must be an IANA time zone such as UTC or Europe/Berlin")
    return value


def knows_zone(name: str) -> bool:
    """The machine's time zone data has it, and it is one of the world's.  Reads a file."""
    if name.partition("/")[0] in _NO_ZONES:
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


ByteSize = Annotated[int, BeforeValidator(_size), Field(ge=1024)]
TimeZone = Annotated[str, AfterValidator(_zone)]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener binds.  Port 0: any free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: str) -> Address:
    """Read `host:port` or `[v6]:port`.  Raises ValueError."""
    host, colon, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        ipaddress.IPv6Address(host)
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets: [::1]:8080")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, for example 127.0.0.1:8080")
    return Address(host, int(port))


def _listen(value: str) -> str:
    parse_address(value)
    return value


Listen = Annotated[str, Field(max_length=300), AfterValidator(_listen)]


def _cidr(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


Cidr = Annotated[str, AfterValidator(_cidr)]
