"""Documents that were parsed once are not parsed again: a list looks at all of its collection.

A document is recognised by its revision, which never comes twice.  What was read least recently
goes first when there are too many.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

MAX_DOCUMENTS: Final = 30_000


@dataclass(slots=True)
class Parsed:
    """By workspace and kind: id to (revision, the parsed document)."""

    limit: int = MAX_DOCUMENTS
    _collections: OrderedDict[tuple[str, str], dict[str, tuple[int, Any]]] = field(
        default_factory=OrderedDict
    )

    def of(self, workspace_id: str, kind: str) -> dict[str, tuple[int, Any]]:
        """What is known of a collection."""
        key = (workspace_id, kind)
        if key in self._collections:
            self._collections.move_to_end(key)
        return self._collections.get(key, {})

    def keep(self, workspace_id: str, kind: str, found: dict[str, tuple[int, Any]]) -> None:
        """Remember a whole collection in place of what was known of it."""
        self._collections[workspace_id, kind] = found
        self._collections.move_to_end((workspace_id, kind))
        held = sum(map(len, self._collections.values()))
        while held > self.limit:
            _, gone = self._collections.popitem(last=False)
            held -= len(gone)

    def __len__(self) -> int:
        return sum(map(len, self._collections.values()))
