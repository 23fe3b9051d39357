"""Documents that were parsed once are not parsed again: a list looks at all of its collection.

A document is recognised by its revision, which never comes twice.  What was read least recently
goes first when there are too many.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

MAX_DOCUMENTS: Final = 30_000
MAX_ORDERS: Final = 8  # of one collection


@dataclass(slots=True)
class Collection:
    """`documents`: id to (revision, the parsed document).  `edition`: the store's, when it was
    read; None: it must be looked at again.  `orders`: whole lists that were put in order, under the
    configuration `config`."""

    edition: int | None
    documents: dict[str, tuple[int, Any]]
    config: object = None
    orders: dict[tuple[object, ...], list[Any]] = field(default_factory=dict)


_EMPTY: Final = Collection(None, {})


@dataclass(slots=True)
class Parsed:
    """The collections by workspace and kind."""

    limit: int = MAX_DOCUMENTS
    _collections: OrderedDict[tuple[str, str], Collection] = field(default_factory=OrderedDict)

    def of(self, workspace_id: str, kind: str) -> Collection:
        """What is known of a collection."""
        key = (workspace_id, kind)
        if key in self._collections:
            self._collections.move_to_end(key)
        return self._collections.get(key, _EMPTY)

    def keep(self, workspace_id: str, kind: str, found: Collection) -> None:
        """Remember a whole collection in place of what was known of it."""
        self._collections[workspace_id, kind] = found
        self._collections.move_to_end((workspace_id, kind))
        held = len(self)
        while held > self.limit:
            _, gone = self._collections.popitem(last=False)
            held -= len(gone.documents)

    def clear(self) -> None:
        """After the store lost its last commits: a revision may come again."""
        self._collections.clear()

    def __len__(self) -> int:
        return sum(len(each.documents) for each in self._collections.values())
