"""Where an endpoint is, and whether a forward proxy stands before it."""

import base64
import ipaddress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True, frozen=True)
class Origin:
    """Scheme, host and port of a URL.  The host is as names are resolved: ASCII, no brackets, no
    trailing dot."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises ValueError (what UnicodeError is, too) when the URL names no such thing."""
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
        if parts.scheme not in _PORTS or not host:
            raise ValueError("no http(s) URL with a host")
        if not host.isascii():
            host = host.encode("idna").decode()
        port = parts.port if parts.port is not None else _PORTS[parts.scheme]
        return cls(parts.scheme, host, port)

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True, frozen=True)
class ForwardProxy:
    """An HTTP proxy that is asked to CONNECT.  `authorization`: its Basic credential, or empty."""

    host: str
    port: int
    authorization: str = ""

    @classmethod
    def of(cls, url: str) -> Self:
        """From `http://[user:password@]host[:port]`, or `host:port`.  Raises ValueError."""
        parts = urlsplit(url if "://" in url else "http://" + url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("a forward proxy is http://[user:password@]host[:port]")
        authorization = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.hostname, 80 if parts.port is None else parts.port, authorization)


class Proxies:
    """Which forward proxy stands before which origin: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`.

    `no_proxy` lists, by commas, `*`, host names (their subdomains with them), addresses, CIDRs,
    each with `:port` where wanted.  `localhost` and loopback addresses never go to a proxy.
    """

    def __init__(
        self, http: str | None = None, https: str | None = None, no_proxy: str = ""
    ) -> None:
        """Raises ValueError for a proxy that we cannot use."""
        self._by_scheme = {
            "http": ForwardProxy.of(http) if http else None,
            "https": ForwardProxy.of(https) if https else None,
        }
        self._direct = [entry.strip().lower() for entry in no_proxy.split(",") if entry.strip()]

    def before(self, origin: Origin) -> ForwardProxy | None:
        found = self._by_scheme[origin.scheme]
        if found is None or _is_loopback(origin.host):
            return None
        return None if any(_covers(entry, origin) for entry in self._direct) else found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _covers(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        return ipaddress.ip_address(origin.host) in network
    except ValueError:
        pass
    name, _, port = entry.rpartition(":")
    if port.isdecimal() and name and (":" not in name or name.endswith("]")):
        return int(port) == origin.port and _covers(name, origin)
    entry = entry.strip("[]").removeprefix("*").removeprefix(".")
    return origin.host == entry or origin.host.endswith("." + entry)
