"""What this process knows to be committed, kept for its next start: `state_dir/spool/cursors.json`.

A store of several machines may come back without its last commits while this machine is down, too.
The next process holds the store's cursors against these, and reads again what is missing.  A lost
file does no harm: then the position files alone say where to go on.
"""

import contextlib
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ValidationError

from proxy.spool.segment import spool_dir
from proxy.wire import jsonbody

FILE: Final = "cursors.json"
Cursors = dict[tuple[str, str], int]  # (workspace, name) -> position


class _File(BaseModel):
    format: Literal[1]
    store: str
    cursors: list[tuple[str, str, int]]


class CursorFile:
    """Of one store, which `tag` names.  Its calls block: they are for a thread."""

    def __init__(self, state_dir: Path, tag: str) -> None:
        self._path = spool_dir(state_dir) / FILE
        self._tag = tag
        self._written: Cursors = {}

    def __repr__(self) -> str:
        return f"<CursorFile {self._path} {len(self._written)}>"

    def read(self) -> Cursors:
        """Nothing when there is no file of this store that can be read."""
        try:
            file = _File.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return {}
        if file.store != self._tag:
            return {}
        return {(workspace_id, name): at for workspace_id, name, at in file.cursors}

    def write(self, cursors: Cursors) -> None:
        """Whole or not at all; nothing when nothing has changed, or the disk takes nothing."""
        if cursors == self._written:
            return
        rows = [[workspace_id, name, at] for (workspace_id, name), at in cursors.items()]
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_bytes(jsonbody.dumps({"format": 1, "store": self._tag, "cursors": rows}))
            fresh.replace(self._path)
            self._written = cursors
