"""Validators by name: checksums and structure tests on the text of a hit.

In charge of pure functions `(text) -> (start, end) | None`; None refuses the hit.  A name that is
not here refuses the pack (`unknown_validator`).
"""

from collections.abc import Callable, Mapping
from typing import Final

Validator = Callable[[str], "tuple[int, int] | None"]


def luhn(text: str) -> tuple[int, int] | None:
    """Double every second digit from the right, minus 9 above 9; the sum ends in 0."""
    digits = [ord(c) - 48 for c in reversed(text) if "0" <= c <= "9"]
    total = sum(
        digit if at % 2 == 0 else digit * 2 - 9 * (digit > 4) for at, digit in enumerate(digits)
    )
    return (0, len(text)) if len(digits) > 1 and total % 10 == 0 else None


VALIDATORS: Final[Mapping[str, Validator]] = {"luhn": luhn}
