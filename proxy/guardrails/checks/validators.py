"""Validators by name: checksums and structure tests on the text of a hit.

In charge of pure functions `(text) -> (start, end) | None`: the part that counts, None refuses the
hit (guardrails.md §5.4).  A name that is not here refuses the pack (`unknown_validator`).
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from proxy.guardrails.checks.digits import all_digits_of, luhn_sum
from proxy.guardrails.checks.national import NATIONAL, Test

Validator = Callable[[str], "tuple[int, int] | None"]

_SSN: Final = re.compile(r"(\d{3})[- ]?(\d{2})[- ]?(\d{4})", re.ASCII)
_SAMPLE_SSNS: Final = ("078051120", "219099999")  # printed in advertisements
_CARD_LENGTHS: Final[tuple[tuple[int, int, int, tuple[int, ...]], ...]] = (
    # digits of the prefix, from, to, lengths
    (1, 4, 4, (13, 16, 19)),  # Visa
    (2, 51, 55, (16,)),  # Mastercard
    (4, 2221, 2720, (16,)),
    (2, 34, 34, (15,)),  # American Express
    (2, 37, 37, (15,)),
    (4, 6011, 6011, (16, 17, 18, 19)),  # Discover
    (3, 644, 649, (16, 17, 18, 19)),
    (2, 65, 65, (16, 17, 18, 19)),
    (3, 300, 305, (14,)),  # Diners Club
    (2, 36, 36, (14,)),
    (2, 38, 38, (14,)),
    (4, 3528, 3589, (16, 17, 18, 19)),  # JCB
    (2, 62, 62, (16, 17, 18, 19)),  # UnionPay
    (2, 50, 50, tuple(range(13, 20))),  # Maestro
    (2, 56, 69, tuple(range(13, 20))),
)
_IBAN_CHARS: Final = {  # ISO 13616
    entry[:2]: int(entry[2:])
    for entry in re.findall(
        "[A-Z]{2}[0-9]{2}",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
        "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
        "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
        "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
        "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}


_IBAN_VALUES: Final = {code: str(code - 55) for code in range(ord("A"), ord("Z") + 1)}


def luhn(text: str) -> tuple[int, int] | None:
    """Double every second digit from the right, minus 9 above 9; the sum ends in 0."""
    digits = all_digits_of(text)
    return (0, len(text)) if len(digits) > 1 and luhn_sum(digits) % 10 == 0 else None


def card(text: str) -> tuple[int, int] | None:
    """A payment card's number: prefix and length of an issuer, and Luhn.  The whole hit is tried,
    then each shorter part that ends before a separator."""
    digits = all_digits_of(text)
    if len(digits) < 13:
        return None
    sizes = _card_sizes(digits[0] * 1000 + digits[1] * 100 + digits[2] * 10 + digits[3])
    if not sizes:
        return None
    cut = text.replace("-", " ")
    end, size = len(text), len(digits)
    while size >= 13:
        if size in sizes and luhn_sum(digits[:size]) % 10 == 0:
            return 0, end
        last, end = end, cut.rfind(" ", 0, end)
        if end < 0:
            return None
        size -= len(all_digits_of(text[end:last]))
    return None


@lru_cache(10_000)
def _card_sizes(head: int) -> tuple[int, ...]:
    """How many digits a card has that begins with these four."""
    return tuple(
        size
        for width, low, high, sizes in _CARD_LENGTHS
        if low <= head // 10 ** (4 - width) <= high
        for size in sizes
    )


def iban(text: str) -> tuple[int, int] | None:
    """An account: the country's length, cut there, and mod 97 = 1 (ISO 13616)."""
    if text[:2].isascii() and text[:2].isalpha() and text[:2].upper() not in _IBAN_CHARS:
        return None
    places = [at for at, sign in enumerate(text) if sign.isascii() and sign.isalnum()]
    size = _IBAN_CHARS.get("".join([text[at] for at in places[:2]]).upper(), 0)
    if not size or len(places) < size:
        return None
    signs = "".join([text[at] for at in places[:size]]).upper()
    if not signs[2:4].isdigit():
        return None
    value = int((signs[4:] + signs[:4]).translate(_IBAN_VALUES))
    return (0, places[size - 1] + 1) if value % 97 == 1 else None


def us_ssn(text: str) -> tuple[int, int] | None:
    """A social security number that may have been given out."""
    found = _SSN.fullmatch(text)
    if found is None:
        return None
    area, group, serial = found.groups()
    never = area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000"
    return None if never or area + group + serial in _SAMPLE_SSNS else (0, len(text))


def ip(text: str) -> tuple[int, int] | None:
    """An address; not one that says "any" or "this machine", nor `::` of some source code."""
    if not _may_be_ip(text):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 6 and sum(map(bool, text.split(":"))) < 3:
        return None
    usual = address.is_unspecified or str(address) in ("127.0.0.1", "::1")
    return None if usual else (0, len(text))


def _may_be_ip(text: str) -> bool:
    """Refuses most of what is no address, quickly."""
    colons = text.count(":")
    if colons:
        return colons > 5 or "::" in text
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdecimal() and int(part) < 256 for part in parts)


def phone(text: str) -> tuple[int, int] | None:
    """8 to 15 digits behind a plus (ITU-T E.164)."""
    digits = sum("0" <= c <= "9" for c in text)
    return (0, len(text)) if text[:1] == "+" and 8 <= digits <= 15 else None


def _whole(test: Test) -> Validator:
    return lambda text: (0, len(text)) if test(text) else None


VALIDATORS: Final[Mapping[str, Validator]] = {
    "luhn": luhn,
    "card": card,
    "iban": iban,
    "us_ssn": us_ssn,
    "ip": ip,
    "phone": phone,
    **{name: _whole(test) for name, test in NATIONAL.items()},
}
