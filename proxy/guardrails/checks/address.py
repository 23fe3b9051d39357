"""One web address, read as the strictest of those who will read it does.

In charge of taking an address apart for kind `url` (guardrails.md §5.8).  Programs differ: what two
of them may read in two ways is read in both, as it stands and with entities and escapes resolved,
with a backslash as a slash and as a letter.  Nothing here asks a name server or raises.
"""

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

HOSTED: Final = ("https", "http", "ftp")

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_ESCAPED: Final = re.compile(r"\\([!-/:-@\[-`{-~])")  # CommonMark 0.31 §2.4
_RESOLVES: Final = re.compile(r"[&\\\x00-\x20]")
_STRIPPED: Final = re.compile(r"[\t\n\r]")  # WHATWG URL §4.4: taken out wherever they stand
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")  # WHATWG URL §3.5: a host that ends in a number
_ELSEWHERE: Final = re.compile(r"[/\\]{2}|www\.", re.IGNORECASE)  # without a scheme
_PLAIN: Final = re.compile(r"[A-Za-z0-9.-]*")
_PORT: Final = re.compile(r":[0-9]*\Z")
_END: Final = re.compile(r"[/?#]")
_DOTS: Final = str.maketrans("\u3002\uff0e\uff61", "...")


@dataclass(frozen=True, slots=True)
class Address:
    """`scheme` in lower case, "" when there is none; `authority` None: of a scheme without one.
    `rest`: from the path on.  `ended`: something stands behind the authority, it cannot grow."""

    scheme: str
    authority: str | None
    rest: str
    ended: bool

    @property
    def sent(self) -> str:
        """Path and query: what a server is told."""
        return self.rest.partition("#")[0]

    @property
    def query(self) -> str:
        return self.sent.partition("?")[2]

    @property
    def hosts(self) -> set[str]:
        """The host as RFC 3986 has it, and as browsers do, for whom a backslash is a slash."""
        authority = self.authority or ""
        strict = _host(authority)
        return {strict, _host(authority.partition("\\")[0])} if "\\" in authority else {strict}


def readings(text: str) -> list[Address]:
    """What an address may mean: as it stands, and as a renderer resolves it.  None of a relative
    one."""
    if _RESOLVES.search(text) is None:
        address = read(text)
        return [] if address is None else [address]
    resolved = _STRIPPED.sub("", _ESCAPED.sub(r"\1", html.unescape(text)))
    resolved = resolved.lstrip("".join(map(chr, range(33))))
    found = [read(one) for one in (text, resolved)]
    return [address for address in found if address is not None]


def read(text: str) -> Address | None:
    """The parts of an address; None when it is relative, and so leads nowhere else."""
    scheme, rest = "", text
    named = _SCHEME.match(text)
    if named is not None:
        scheme, rest = named[1].lower(), text[named.end() :]
        if scheme not in HOSTED:
            return Address(scheme, None, rest, ended=True)
    elif _ELSEWHERE.match(text) is None:
        return None
    rest = rest.lstrip("/\\")
    end = _END.search(rest)
    at = end.start() if end else len(rest)
    return Address(scheme, rest[:at], rest[at:], ended=end is not None)


def is_number(host: str) -> bool:
    """An address in digits, in any form that a browser takes: dotted, decimal, octal, hex, IPv6."""
    return host.startswith("[") or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def is_foreign(host: str) -> bool:
    """A label is not plain ASCII, or hides what it is in punycode."""
    return any(label.startswith("xn--") or not label.isascii() for label in host.split("."))


def domains(names: Iterable[str]) -> tuple[str, ...]:
    """Names of domains as hosts are compared with them."""
    return tuple(_plain(_host(name.removeprefix("*."))) for name in names)


def within(host: str, names: tuple[str, ...]) -> bool:
    """The host is one of these domains or below one: labels are compared, never letters."""
    plain = _plain(host)
    return any(plain == name or plain.endswith(f".{name}") for name in names)


def _host(authority: str) -> str:
    host = authority.rpartition("@")[2]
    host = _PORT.sub("", host)
    if _PLAIN.fullmatch(host):
        return host.lower().rstrip(".")
    host = unicodedata.normalize("NFKC", unquote(host).translate(_DOTS)).lower()
    return "".join(c for c in host if unicodedata.category(c) not in ("Cc", "Cf")).rstrip(".")


def _plain(host: str) -> str:
    """In punycode, where it has one."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host
