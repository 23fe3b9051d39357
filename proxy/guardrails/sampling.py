"""Which requests a sampled rule looks at (guardrails.md §3.1: `sample_pct`).

One number per request decides for all its texts and for all rules, so whoever asks for less sees a
part of what others see.
"""

from hashlib import blake2b
from typing import Final

ALL: Final = -1.0  # below every percentage: no rule is left out
_DIGEST_BYTES: Final = 8


def draw_of(request_id: str) -> float:
    """The request's number, from 0 to just below 100: rules with a higher `sample_pct` look."""
    digest = blake2b(request_id.encode("utf-8", "replace"), digest_size=_DIGEST_BYTES).digest()
    return (int.from_bytes(digest, "big") >> 11) * 100.0 / (1 << 53)
