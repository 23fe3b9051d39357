"""The door to RE2: the only engine that sees administrators' patterns.

In charge of compiling and searching in linear time, on UTF-8 bytes (on `str` the binding encodes at
every call).  Invariant: no search can take more than time in proportion to its text.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import re2

PATTERN_MEM_BYTES = 8 << 20  # one administrator's pattern
INNER_MEM_BYTES = 64 << 20  # what is derived from it; 10,000 keywords do not compile in 8 MiB

Bounds = tuple[int, int]
_Run = Callable[[object, bytes, int, int], Sequence[Bounds]]

_ANYWHERE: Final = re2._re2.RE2.Anchor.UNANCHORED  # noqa: SLF001
_HERE: Final = re2._re2.RE2.Anchor.ANCHOR_START  # noqa: SLF001
_NO_MATCH: Final = (-1, -1)


class LinearError(ValueError):
    """RE2 refuses the pattern; `too_large` when only its size is at fault."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.too_large = "too large" in detail or "too deep" in detail or "too big" in detail


class Regex:
    """One compiled pattern.  Offsets are bytes; `at` keeps what stands before it as context."""

    __slots__ = ("_compiled", "_run", "groups", "pattern")

    def __init__(
        self, pattern: str, *, ignore_case: bool = False, max_mem: int = PATTERN_MEM_BYTES
    ) -> None:
        options = re2.Options()
        options.max_mem = max_mem
        options.log_errors = False  # RE2 writes the pattern to stderr otherwise
        options.case_sensitive = not ignore_case
        try:
            compiled = re2.compile(pattern, options)
        except re2.error as fault:
            told = fault.args[0] if fault.args else ""
            raise LinearError(told.decode() if isinstance(told, bytes) else str(told)) from fault
        self.pattern = pattern
        self.groups: int = compiled.groups
        self._compiled = compiled
        self._run: _Run = compiled._regexp.Match  # noqa: SLF001  # the engine, not its wrapper

    @property
    def size(self) -> int:
        """Instructions of the program: what it costs to compile, and to keep."""
        instructions: int = self._compiled._regexp.ProgramSize()  # noqa: SLF001
        return instructions

    def spans(self, data: bytes, at: int) -> Sequence[Bounds]:
        """Of the leftmost match from `at` on: its bounds and those of each group; -1: none."""
        return self._run(_ANYWHERE, data, at, len(data))

    def spans_within(self, data: bytes, at: int, end: int) -> Sequence[Bounds]:
        """The same for matches that end at `end` or before; what stands behind is context."""
        return self._run(_ANYWHERE, data, at, min(end, len(data)))

    def spans_here(self, data: bytes, at: int) -> Sequence[Bounds]:
        """The same for the match that begins exactly at `at`."""
        return self._run(_HERE, data, at, len(data))

    def search(self, data: bytes, at: int = 0, group: int = 0) -> tuple[Bounds, Bounds] | None:
        """The leftmost match from `at` on: its bounds, and those of the group ((-1, -1): unset)."""
        spans = self._run(_ANYWHERE, data, at, len(data))
        return None if spans[0] == _NO_MATCH else (spans[0], spans[group])

    def search_start(self, data: bytes, at: int) -> int:
        """Where the leftmost match begins; -1 when there is none."""
        return self._run(_ANYWHERE, data, at, len(data))[0][0]

    def match(self, data: bytes, at: int, group: int = 0) -> tuple[Bounds, Bounds] | None:
        """The same for the match that begins exactly at `at`."""
        spans = self._run(_HERE, data, at, len(data))
        return None if spans[0] == _NO_MATCH else (spans[0], spans[group])

    def __repr__(self) -> str:
        return f"<Regex {len(self.pattern)} characters>"


class GateSet:
    """Which of many short regexes fit somewhere in a text, case ignored, in one pass.

    `present`: their indices, in the order they were given; nearly every text of every request is
    asked for them, so this is the engine's own function, not its wrapper.
    """

    __slots__ = ("_set", "present")

    def __init__(self, gates: Iterable[str]) -> None:
        options = re2.Options()
        options.max_mem = INNER_MEM_BYTES
        options.log_errors = False
        options.case_sensitive = False
        self._set = re2.Set.SearchSet(options)
        for gate in gates:
            self._set.Add(gate)
        self._set.Compile()
        self.present: Callable[[bytes], Sequence[int]] = self._set._set.Match  # noqa: SLF001
