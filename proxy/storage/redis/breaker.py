"""Whether the server is worth asking: a breaker that opens after three failures in a row, or after
a second spent waiting for nothing.  While it is open nobody waits; a probe closes it again.

Callers that found no free connection of ours say nothing here: that is not a dead server.
"""

from typing import Final

FAILURES: Final = 3
WAITED_S: Final = 1.0


class Breaker:
    """`failed` and `succeeded` answer whether the state changed: each change is told once."""

    __slots__ = ("_failures", "_waited_s", "open_since_s")

    def __init__(self) -> None:
        self._failures = 0
        self._waited_s = 0.0
        self.open_since_s: float | None = None

    def __repr__(self) -> str:
        return f"<Breaker {'open' if self.open else 'closed'}, {self._failures} failures>"

    @property
    def open(self) -> bool:
        return self.open_since_s is not None

    def failed(self, now_s: float, waited_s: float) -> bool:
        """A call failed after `waited_s`.  True: the breaker has opened."""
        self._failures += 1
        self._waited_s += waited_s
        if self.open or (self._failures < FAILURES and self._waited_s < WAITED_S):
            return False
        self.open_since_s = now_s
        return True

    def succeeded(self) -> bool:
        """The server answered.  True: the breaker has closed."""
        was_open = self.open
        self._failures, self._waited_s, self.open_since_s = 0, 0.0, None
        return was_open
