"""The caller's side of a stream that another answer may go on with: what he has is kept."""

from typing import Final, Protocol

from proxy.model.ports import Call, Downstream
from proxy.model.recovery import Misfit
from proxy.wire.continuing import Joiner

KEPT_BYTES: Final = 8 * 1024 * 1024  # of one stream
WORKER_BYTES: Final = 256 * 1024 * 1024  # of all streams of a worker together
BLOCK_BYTES: Final = 64 * 1024


class Keeping:
    """What the streams of a worker may keep together; `left`: how much of it nobody has taken."""

    __slots__ = ("left",)

    def __init__(self, left: int = WORKER_BYTES) -> None:
        self.left = left

    def __repr__(self) -> str:
        return f"<Keeping {self.left} bytes left>"


class Source(Protocol):
    """The answer that is tried."""

    def leave(self) -> None: ...


class Outlet:
    """`joiner`: makes what comes fit behind what the caller has; None before anything died.
    `source`: who is told to stop when it does not fit.  `too_long`: the caller has more than is
    kept."""

    __slots__ = ("_caller", "_keeping", "_kept", "_room", "_taken", "joiner", "source", "too_long")

    def __init__(self, caller: Downstream, keeping: Keeping) -> None:
        self._caller = caller
        self._keeping = keeping
        self._kept: list[bytes] = []
        self._taken = self._room = 0
        self.joiner: Joiner | None = None
        self.source: Source | None = None
        self.too_long = False

    def __repr__(self) -> str:
        return f"<Outlet {self._taken - self._room} bytes{', joining' if self.joiner else ''}>"

    @property
    def fault(self) -> Misfit:
        """What came does not fit."""
        return self.joiner.fault if self.joiner is not None else ""

    @property
    def released(self) -> bytes:
        """All that was written."""
        whole = b"".join(self._kept)
        self._kept = [whole]
        return whole

    def write(self, data: bytes) -> None:
        if self.joiner is not None:
            data = self.joiner.feed(data)
            if self.joiner.fault and self.source is not None:
                self.source.leave()
            if not data:
                return
        self._room -= len(data)
        if self._room >= 0 or self._grows():
            self._kept.append(data)
        self._caller.write(data)

    def _grows(self) -> bool:
        """Take more of what all may keep.  False: there is no more of it."""
        keeping = self._keeping
        while self._room < 0 and not self.too_long:
            if self._taken >= KEPT_BYTES or keeping.left < BLOCK_BYTES:
                self.close()
            else:
                keeping.left -= BLOCK_BYTES
                self._taken += BLOCK_BYTES
                self._room += BLOCK_BYTES
        return not self.too_long

    def close(self) -> None:
        """Nothing will go on with it: what was kept is given back, and no more is."""
        self.too_long = True
        self._kept.clear()
        self._keeping.left += self._taken
        self._taken = 0

    def follow(self, call: Call | None) -> None:
        self._caller.follow(call)

    def last(self, data: bytes) -> bytes:
        """What ends the stream, as it fits: nothing that is expected before it comes any more."""
        if self.joiner is None:
            return data
        self.joiner.release()
        return self.joiner.feed(data)
