"""Which addresses may be spoken to (T-SSRF-05, T-TRAP-41).

Private and loopback addresses are for endpoints with `allow_private`.  The metadata services of
clouds, which hand out credentials to whoever asks, are for nobody.  The list is explicit:
`ipaddress.is_global` takes several forms of private addresses for public ones.

An IPv6 address that carries an IPv4 address is judged by what it carries: mapped and NAT64
addresses, which lead there wherever they lead, stand or fall with it; other carriers are refused
like private addresses, and like metadata services when they carry one.
"""

import ipaddress
import socket
from typing import Literal

Judgement = Literal["public", "private", "metadata"]

_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google, OpenStack, Oracle, DigitalOcean
        "169.254.170.2",  # AWS: credentials of containers
        "169.254.170.23",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
        "fe80::a9fe:a9fe",  # OpenStack
        "168.63.129.16",  # Azure: the host's agent
        "100.100.100.200",  # Alibaba
        "169.254.0.23",  # Tencent
        "192.0.0.192",  # Oracle
    )
)
_PRIVATE_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_PRIVATE_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",  # unspecified, loopback, IPv4-compatible
        "64:ff9b:1::/48",  # NAT64 of a local network
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


def judge(address: str) -> Judgement:
    """Say of what sort an address is.  What is no address is private: refused where in doubt."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "private"
    if isinstance(parsed, ipaddress.IPv4Address):
        return _judge_v4(parsed)
    if parsed in _METADATA:
        return "metadata"
    carried = [_judge_v4(inner) for inner in _carried(parsed)]
    if "metadata" in carried:
        return "metadata"
    if parsed in _MAPPED or parsed in _NAT64:
        return carried[0]
    return "private" if any(parsed in network for network in _PRIVATE_V6) else "public"


def may_connect(address: str, *, allow_private: bool) -> bool:
    sort = judge(address)
    return sort == "public" or (sort == "private" and allow_private)


def literal(host: str) -> str | None:
    """The address that a host name is by itself, in any form that resolvers understand: `10.1.2.3`,
    `::1`, but `127.1`, `0x7f000001`, `2130706433` and `127.0.0.1.` as well.  None: it is a name."""
    host = host.removesuffix(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) if host[:1].isdigit() else None
    except OSError:
        return None


def forbidden(host: str) -> bool:
    """It is an address by itself, and none that anything is sent to."""
    address = literal(host)
    return address is not None and not may_connect(address, allow_private=False)


def _judge_v4(address: ipaddress.IPv4Address) -> Judgement:
    if address in _METADATA:
        return "metadata"
    return "private" if any(address in network for network in _PRIVATE_V4) else "public"


def _carried(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses inside, by every scheme of embedding that may apply."""
    value = int(address)
    low = ipaddress.IPv4Address(value & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return [ipaddress.IPv4Address(value >> 80 & 0xFFFFFFFF)]
    if address in _TEREDO:
        return [ipaddress.IPv4Address(~value & 0xFFFFFFFF)]
    if address in _MAPPED or address in _NAT64 or any(address in net for net in _PRIVATE_V6[:2]):
        return [low]
    return []
