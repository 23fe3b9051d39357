"""Two things that every stream reader needs: halves of surrogate pairs, and texts nobody knows.

Providers split an emoji's surrogate pair over two deltas, each half legal JSON.  The half waits for
the next delta of its lane, so no guardrail and no caller ever sees one alone.
"""

from collections.abc import Collection, Iterable
from typing import Final

from proxy.model.exchange import Delta, Json, Part
from proxy.wire.dialect import Lane
from proxy.wire.jsonbody import MAX_DEPTH

MAX_ASSEMBLED: Final = 1024 * 1024
MAX_PARTS: Final = 256


class Halves:
    """The half surrogate pairs of a stream's lanes."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Lane, str] = {}

    def mend(self, delta: Delta) -> bool:
        """Make the text of `delta` whole, in its holder too.  True: it was changed."""
        text = delta.text
        waiting = self._waiting.pop(delta.lane, "")
        if not waiting and text.isascii():
            return False
        whole = waiting + text
        if whole and "\ud800" <= whole[-1] <= "\udbff":
            self._waiting[delta.lane] = whole[-1]
            whole = whole[:-1]
        whole = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if whole == text:
            return False
        delta.text = delta.holder[delta.member] = whole
        return True

    def mend_all(self, deltas: list[Delta]) -> bool:
        changed = False
        for delta in deltas:
            changed = self.mend(delta) or changed
        return changed

    def __bool__(self) -> bool:
        return bool(self._waiting)


class Strangers:
    """Strings under names that no map knows: one lane each, which ends in the event it came in."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def deltas(
        self,
        holder: dict[str, Json],
        names: Iterable[str],
        part: Part,
        at: int,
        skip: Collection[str] = (),
    ) -> list[Delta]:
        """The texts under `names` of `holder`, but for those under the names of `skip`.  Raises
        ValueError for what is nested too deeply."""
        found: list[Delta] = []
        todo = [(holder[name], holder, name) for name in names]
        for _ in range(MAX_DEPTH):
            below: list[tuple[Json, dict[str, Json], str]] = []
            for value, within, name in todo:
                if type(value) is str:
                    if value:
                        self._count += 1
                        found.append(Delta((at, part, self._count), value, within, name))
                elif type(value) is dict:
                    below += [(v, value, n) for n, v in value.items() if n not in skip]
                elif type(value) is list:
                    below += [(v, _Place(value, n), "") for n, v in enumerate(value)]
            if not below:
                return found
            todo = below
        raise ValueError("texts nested too deeply")


class _Place(dict[str, Json]):
    """A place of a list, so that a text in it can be rewritten like a member."""

    __slots__ = ("_list", "_place")

    def __init__(self, values: list[Json], place: int) -> None:
        super().__init__()
        self._list, self._place = values, place

    def __setitem__(self, name: str, value: Json) -> None:
        self._list[self._place] = value
