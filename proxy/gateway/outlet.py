"""The caller's side of a stream that another answer may go on with: what he has is kept."""

from typing import Final, Protocol

from proxy.model.ports import Call, Downstream
from proxy.model.recovery import Misfit
from proxy.wire.continuing import Joiner

KEPT_BYTES: Final = 8 * 1024 * 1024


class Source(Protocol):
    """The answer that is tried."""

    def leave(self) -> None: ...


class Outlet:
    """`joiner`: makes what comes fit behind what the caller has; None before anything died.
    `source`: who is told to stop when it does not fit.  `too_long`: the caller has more than is
    kept."""

    __slots__ = ("_caller", "_kept", "_room", "joiner", "source", "too_long")

    def __init__(self, caller: Downstream) -> None:
        self._caller = caller
        self._kept: list[bytes] = []
        self._room = KEPT_BYTES
        self.joiner: Joiner | None = None
        self.source: Source | None = None
        self.too_long = False

    def __repr__(self) -> str:
        return f"<Outlet {KEPT_BYTES - self._room} bytes{', joining' if self.joiner else ''}>"

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
        if self._room >= 0:
            self._kept.append(data)
        elif not self.too_long:
            self._kept.clear()
            self.too_long = True
        self._caller.write(data)

    def follow(self, call: Call | None) -> None:
        self._caller.follow(call)

    def last(self, data: bytes) -> bytes:
        """What ends the stream, as it fits: nothing that is expected before it comes any more."""
        if self.joiner is None:
            return data
        self.joiner.release()
        return self.joiner.feed(data)
