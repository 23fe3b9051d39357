"""What a worker knows of checks outside, whatever the snapshot: opinions that were heard before,
and which services are down.

In charge of the cache and the breakers of guardrails.md §5.12.  No text is kept: a key is a hash,
a value says where and what.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from proxy.guardrails.checks.external.words import Opinion

MAX_OPINIONS: Final = 2048
MAX_BREAKERS: Final = 1024
FAILURES: Final = 5  # in a row
OPEN_S: Final = 10.0


@dataclass(slots=True)
class Breaker:
    """Open after five failures in a row; then the check fails at once, until `open_until`."""

    failures: int = 0
    open_until: float = 0.0

    def is_open(self, now: float) -> bool:
        return now < self.open_until

    def succeeded(self) -> None:
        self.failures, self.open_until = 0, 0.0

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= FAILURES:
            self.open_until = now + OPEN_S


class Opinions:
    """Of one worker.  Times are seconds of the monotonic clock."""

    __slots__ = ("_breakers", "_known")

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, Opinion]] = OrderedDict()
        self._breakers: OrderedDict[bytes, Breaker] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Opinions {len(self._known)} known, {len(self._breakers)} services>"

    def get(self, key: bytes, now: float) -> Opinion | None:
        found = self._known.get(key)
        if found is None:
            return None
        if found[0] <= now:
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return found[1]

    def put(self, key: bytes, opinion: Opinion, due: float) -> None:
        """Keep an opinion until `due`; not one that holds a text."""
        if opinion.rewritten is not None or any(s.replacement is not None for s in opinion.spots):
            return
        self._known[key] = due, opinion
        self._known.move_to_end(key)
        if len(self._known) > MAX_OPINIONS:
            self._known.popitem(last=False)

    def breaker(self, key: bytes) -> Breaker:
        """Of the check with that digest; the least used ones are forgotten."""
        found = self._breakers.get(key)
        if found is None:
            found = self._breakers[key] = Breaker()
            if len(self._breakers) > MAX_BREAKERS:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(key)
        return found
