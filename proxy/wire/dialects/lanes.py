"""Two things that every stream reader needs: halves of surrogate pairs, and texts nobody knows.

Providers split an emoji's surrogate pair over two deltas, each half legal JSON.  The half waits for
the next delta of its lane, so no guardrail and no caller ever sees one alone.
"""

from collections.abc import Collection, Iterable
from typing import Final

from proxy.model.exchange import Delta, Json, Operation, Part, Stand
from proxy.wire.dialect import Lane
from proxy.wire.jsonbody import MAX_DEPTH, Path

MAX_ASSEMBLED: Final = 1024 * 1024
MAX_PARTS: Final = 256
FIRST: Final = 16  # from here on lanes of texts that nobody knows
SPEAKING: Final[frozenset[Operation]] = frozenset({"chat", "completions", "messages"})
TOO_MANY: Final = -2  # where they all would be that are more than can be told apart
_COMPLETE: Final = frozenset(
    {"type", "id", "object", "format", "role", "status", "provider", "native_finish_reason"}
    | {"matched_stop", "citation", "citations", "search_results"}
)
_Below = tuple[Json, dict[str, Json], str, Path, Stand]


def choices_asked(operation: Operation, doc: dict[str, Json] | None) -> int:
    """How many choices the answer to a request has, if the provider does as it is told: `n` for
    each prompt."""
    if doc is None or operation not in ("chat", "completions"):
        return 1
    found, prompts = doc.get("n"), doc.get("prompt")
    asked = found if type(found) is int and found > 0 else 1
    if (
        operation == "completions"
        and type(prompts) is list
        and not any(type(p) is int for p in prompts[:1])
    ):
        asked *= max(1, len(prompts))
    return min(asked, MAX_PARTS)


def paired(text: str) -> str:
    """The text with halves of surrogate pairs joined, and lone ones made U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


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
        if whole and 0xD800 <= ord(whole[-1]) <= 0xDBFF:
            self._waiting[delta.lane] = whole[-1]
            whole = whole[:-1]
        whole = paired(whole)
        if whole == text:
            return False
        delta.text = delta.holder[delta.member] = whole
        return True

    def mend_all(self, deltas: list[Delta]) -> bool:
        changed = False
        for delta in deltas:
            changed = self.mend(delta) or changed
        return changed

    def forget(self, lanes: Iterable[Lane]) -> None:
        """Those lanes have ended."""
        if self._waiting:
            for lane in lanes:
                self._waiting.pop(lane, None)

    def __bool__(self) -> bool:
        return bool(self._waiting)


class Strangers:
    """Strings under names that no map knows.

    One that may grow has a lane, known by its path, so that what was split over events is found.
    Those below the names of `_COMPLETE` say all they have to say in one event.
    """

    __slots__ = ("_count", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, Part, Path], int] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Strangers {len(self._numbers)} lanes>"

    def deltas(
        self,
        holder: dict[str, Json],
        names: Iterable[str],
        part: Part,
        at: int,
        skip: Collection[str] = (),
        stands: Stand = "waiting",
    ) -> list[Delta]:
        """The texts under `names` of `holder`, but for those under the names of `skip`.  Raises
        ValueError for what is nested too deeply."""
        found: list[Delta] = []
        todo: list[_Below] = [
            (holder[name], holder, name, (name,), _stand(name, stands)) for name in names
        ]
        for _ in range(MAX_DEPTH):
            below: list[_Below] = []
            for value, within, name, path, how in todo:
                if type(value) is str:
                    if value:
                        number = self._number(at, part, path) if how == "waiting" else FIRST
                        found.append(Delta((at, part, number), value, within, name, how))
                elif type(value) is dict:
                    below += [
                        (v, value, n, (*path, n), _stand(n, how))
                        for n, v in value.items()
                        if n not in skip
                    ]
                elif type(value) is list:
                    below += [
                        (v, _Place(value, n), "", (*path, n), how) for n, v in enumerate(value)
                    ]
            if not below:
                return found
            todo = below
        raise ValueError("texts nested too deeply")

    def lanes_of(self, at: int) -> list[Lane]:
        """The lanes that a choice or block has begun."""
        return [(key[0], key[1], number) for key, number in self._numbers.items() if key[0] == at]

    def forget(self, at: int) -> None:
        """That block has ended."""
        for key in [key for key in self._numbers if key[0] == at]:
            del self._numbers[key]

    def _number(self, at: int, part: Part, path: Path) -> int:
        number = self._numbers.get((at, part, path))
        if number is None:
            if len(self._numbers) >= MAX_PARTS:
                return TOO_MANY
            self._count += 1
            number = self._numbers[at, part, path] = FIRST + self._count
        return number


def _stand(name: str, stands: Stand) -> Stand:
    return "alone" if stands == "waiting" and name in _COMPLETE else stands


class _Place(dict[str, Json]):
    """A place of a list, so that a text in it can be rewritten like a member."""

    __slots__ = ("_list", "_place")

    def __init__(self, values: list[Json], place: int) -> None:
        super().__init__()
        self._list, self._place = values, place

    def __setitem__(self, name: str, value: Json) -> None:
        self._list[self._place] = value
