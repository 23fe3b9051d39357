"""Checksums over digits, shared by the validators of cards, accounts and national numbers.

In charge of arithmetic only: digits in, numbers out.
"""

from collections.abc import Sequence
from datetime import date
from operator import mul
from typing import Final

_SEPARATORS: Final = str.maketrans("", "", " -./")
_VALUES: Final = bytes(48) + bytes(range(10)) + bytes(198)  # of the signs of digits
_NO_DIGITS: Final = bytes([code for code in range(256) if not 48 <= code < 58])
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
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
    return list(plain.encode().translate(_VALUES))


def all_digits_of(text: str) -> list[int]:
    """Every digit of ASCII in a text."""
    return list(text.encode("utf-8", "replace").translate(_VALUES, _NO_DIGITS))


def weighted(digits: Sequence[int], weights: Sequence[int]) -> int:
    """The sum of the first digits, each times its weight."""
    return sum(map(mul, digits, weights))


def luhn_sum(digits: Sequence[int]) -> int:
    """Every second digit from the right doubled, minus 9 above 9 (ISO/IEC 7812-1)."""
    return sum(digits[-1::-2]) + sum([_DOUBLED[digit] for digit in digits[-2::-2]])


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
    value = 0
    for digit in digits:
        value = value * 10 + digit
    return value


def is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def is_short_date(year: int, month: int, day: int) -> bool:
    """A date whose century is not told."""
    return is_date(1900 + year, month, day) or is_date(2000 + year, month, day)
