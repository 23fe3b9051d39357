"""Checksums over digits, shared by the validators of cards, accounts and national numbers.

In charge of arithmetic only: digits in, numbers out.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

_SEPARATORS: Final = str.maketrans("", "", " -./")
_TIMES: Final = (  # multiplication in the dihedral group of ten elements
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_MOVED: Final = (  # the permutation of each place, from the right
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def digits_of(text: str, count: int) -> list[int] | None:
    """The digits of a number written with or without separators; None: there are not `count`."""
    plain = text.translate(_SEPARATORS)
    if len(plain) != count or not (plain.isascii() and plain.isdigit()):
        return None
    return [ord(c) - 48 for c in plain]


def weighted(digits: Sequence[int], weights: Sequence[int]) -> int:
    """The sum of the first digits, each times its weight."""
    return sum(map(int.__mul__, digits, weights))


def luhn_sum(digits: Sequence[int]) -> int:
    """Every second digit from the right doubled, minus 9 above 9 (ISO/IEC 7812-1)."""
    total = sum(digits)
    for digit in digits[-2::-2]:
        total += digit if digit < 5 else digit - 9
    return total


def mod_11_10(digits: Sequence[int]) -> bool:
    """ISO 7064, MOD 11,10: the last digit is the check."""
    rest = 10
    for digit in digits[:-1]:
        rest = (rest + digit) % 10 or 10
        rest = rest * 2 % 11
    return (rest + digits[-1]) % 10 == 1


def verhoeff(digits: Sequence[int]) -> bool:
    """Verhoeff's check over the dihedral group; the last digit is the check."""
    state = 0
    for at, digit in enumerate(reversed(digits)):
        state = int(_TIMES[state][int(_MOVED[at % 8][digit])])
    return state == 0


def number(digits: Sequence[int]) -> int:
    return int("".join(map(str, digits)) or "0")


def is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def is_short_date(year: int, month: int, day: int) -> bool:
    """A date whose century is not told."""
    return is_date(1900 + year, month, day) or is_date(2000 + year, month, day)
