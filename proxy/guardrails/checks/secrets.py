"""Kind `secret`: what tells a credential from a placeholder for one.

In charge of entropy and of refusing placeholders (guardrails.md §5.3).  The refusal looks at the
first HEAD characters of the span only: so a long key is settled before its end, and chance letters
deep inside a real one (`xxxx` in 1.7 KB of base64) cannot save it from redaction.
"""

from collections.abc import Sequence
from math import log2
from typing import Final

HEAD: Final = 64
_GIVEAWAYS: Final = (
    "example",
    "placeholder",
    "redacted",
    "changeme",
    "xxxx",
    "****",
    "your_",
    "your-",
)


def entropy(text: str) -> float:
    """Shannon bits per character."""
    size = len(text)
    shares = [text.count(c) / size for c in set(text)]
    return -sum([share * log2(share) for share in shares]) + 0.0


def is_placeholder(span: str, keywords: Sequence[str]) -> bool:
    """Somebody's stand-in for a key: a telling word, or hardly any variety after the prefix."""
    head = span[:HEAD].lower()
    if any(word in head for word in _GIVEAWAYS):
        return True
    ends = [at + len(word) for word in keywords if (at := head.find(word)) >= 0]
    rest = head[min(ends, default=0) :] or head
    return len(set(rest)) <= 2
