"""Permits that every worker of a node was given, of which one is used at a time: a claim is a lock
of the kernel on some byte of a file that nobody reads.

Nobody is asked and nobody waits: a lock is had at once or not at all, and what a dead process held
is free.  Where the state directory knows no locks, each worker may probe for itself.
"""

import fcntl
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final

from proxy.routing.standing import Standing
from proxy.routing.states import Claim

FILE: Final = "permits.lock"
_MOST: Final = 16  # permits of one endpoint at once; a policy may have ten
_PLACE_BYTES: Final = 7  # of an offset, with room for `_MOST`


class Claims:
    """Those of one process.  SECURITY: the bytes are places, and nothing is written there."""

    def __init__(self, state_dir: Path) -> None:
        self._held: set[int] = set()  # a process does not keep itself out
        self._file: int | None = None
        try:
            self._file = os.open(state_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 0)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)
        except OSError:
            self.close()

    def __repr__(self) -> str:
        return f"<Claims {len(self._held)} held>"

    def close(self) -> None:
        """All of them are free."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def of(self, standing: Standing, endpoint_id: str) -> Claim | None:
        """None: there are no locks here."""
        if self._file is None:
            return None
        name = "\n".join((standing.workspace_id, standing.policy.effective_id, endpoint_id))
        place = int.from_bytes(blake2b(name.encode(), digest_size=_PLACE_BYTES).digest()) >> 1
        return _Locked(self, place * _MOST, standing.policy.recovery.probe_max_concurrent)

    def take(self, places: range) -> int | None:
        """One that nobody has."""
        for place in places if self._file is not None else ():
            if place not in self._held and self._lock(place):
                self._held.add(place)
                return place
        return None

    def free(self, place: int) -> None:
        self._held.discard(place)
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def _lock(self, place: int) -> bool:
        assert self._file is not None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            return False
        return True


class _Locked:
    """One of so many places."""

    __slots__ = ("_claims", "_place", "_places")

    def __init__(self, claims: Claims, first: int, count: int) -> None:
        self._claims = claims
        self._places = range(first, first + count)
        self._place: int | None = None

    def __repr__(self) -> str:
        return f"<Claim {'free' if self._place is None else 'taken'}>"

    def take(self) -> bool:
        self._place = self._claims.take(self._places)
        return self._place is not None

    def free(self) -> None:
        if self._place is not None:
            self._claims.free(self._place)
            self._place = None
