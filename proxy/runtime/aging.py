"""How old the oldest thing is that an answer was made of, when its source is away.

Whoever can live with old things says so for as long as it reads; whoever gives old things looks
whether that was said, and tells their age.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Aged:
    """`seconds`: the age of the oldest; None: nothing old was given."""

    seconds: float | None = None

    def given(self, seconds: float) -> None:
        """Something of this age was given."""
        self.seconds = seconds if self.seconds is None else max(self.seconds, seconds)


_asked: ContextVar[Aged | None] = ContextVar("aged", default=None)


@contextmanager
def may_be_old() -> Iterator[Aged]:
    """What is read inside may be old."""
    aged = Aged()
    token = _asked.set(aged)
    try:
        yield aged
    finally:
        _asked.reset(token)


def old_will_do() -> Aged | None:
    """Where to tell the age of something old; None: only what is new will do."""
    return _asked.get()
