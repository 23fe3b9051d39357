"""The door to RE2: the only engine that sees administrators' patterns.

In charge of compiling and searching in linear time, on UTF-8 bytes (on `str` the binding encodes at
every call).  Invariant: no search can take more than time in proportion to its text.
"""

from collections.abc import Callable, Iterable, Sequence

import re2

PATTERN_MEM_BYTES = 8 << 20  # one administrator's pattern
INNER_MEM_BYTES = 64 << 20  # what is derived from it; 10,000 keywords do not compile in 8 MiB

Bounds = tuple[int, int]


class LinearError(ValueError):
    """RE2 refuses the pattern; `too_large` when only its size is at fault."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.too_large = "too large" in detail or "too deep" in detail or "too big" in detail


class Regex:
    """One compiled pattern.  Offsets are bytes; `at` keeps what stands before it as context."""

    __slots__ = ("_find", "_match", "groups", "pattern")

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
        self._find = compiled.search
        self._match = compiled.match

    def search(self, data: bytes, at: int = 0, group: int = 0) -> tuple[Bounds, Bounds] | None:
        """The leftmost match from `at` on: its bounds, and those of the group ((-1, -1): unset)."""
        found = self._find(data, at)
        if found is None:
            return None
        whole: Bounds = found.span()
        return whole, (found.span(group) if group else whole)

    def search_start(self, data: bytes, at: int) -> int:
        """Where the leftmost match begins; -1 when there is none."""
        found = self._find(data, at)
        return -1 if found is None else int(found.start())

    def match(self, data: bytes, at: int, group: int = 0) -> tuple[Bounds, Bounds] | None:
        """The same for the match that begins exactly at `at`."""
        found = self._match(data, at)
        if found is None:
            return None
        whole: Bounds = found.span()
        return whole, (found.span(group) if group else whole)

    def __repr__(self) -> str:
        return f"<Regex {len(self.pattern)} characters>"


class KeywordSet:
    """Which of many literals occur in a text, case ignored, in one pass.

    `present`: their indices, in the order they were given; nearly every text of every request is
    asked for them, so this is the engine's own function, not its wrapper.
    """

    __slots__ = ("_set", "present")

    def __init__(self, words: Iterable[str]) -> None:
        options = re2.Options()
        options.max_mem = INNER_MEM_BYTES
        options.log_errors = False
        options.literal = True
        options.case_sensitive = False
        self._set = re2.Set.SearchSet(options)
        for word in words:
            self._set.Add(word)
        self._set.Compile()
        self.present: Callable[[bytes], Sequence[int]] = self._set._set.Match  # noqa: SLF001
