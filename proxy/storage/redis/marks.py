"""The ends of the logs as this process knew them, so that a server that forgot is found out.

Answers of one server only grow: an end that was heard of before a question was asked is not beyond
the end in its answer.  When it is, the server may be another one, or the same one anew, without its
last commits; whether it is, `RedisStore` looks up.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from proxy.model.batch import Append, Appended, Batch, Setback

NEVER: Final = Setback()
Log = tuple[str, str]  # workspace, log


class Marks:
    """`suspects`: logs that gave a `seq` again, each with the last one before."""

    def __init__(self) -> None:
        self._ends: dict[Log, int] = {}
        self._setbacks: dict[Log, Setback] = {}
        self.suspects: dict[Log, int] = {}

    def __repr__(self) -> str:
        return f"<Marks {len(self._ends)} logs, {len(self._setbacks)} set back>"

    def ends(self) -> dict[Log, int]:
        """To be taken before a question is asked."""
        return dict(self._ends)

    def end(self, workspace_id: str, log: str) -> int:
        return self._ends.get((workspace_id, log), 0)

    def saw(self, workspace_id: str, log: str, seq: int) -> None:
        """An answer spoke of this `seq`."""
        key = workspace_id, log
        if seq > self._ends.get(key, 0):
            self._ends[key] = seq

    def committed(
        self, workspace_id: str, batch: Batch, outcomes: Sequence[Appended], before: dict[str, int]
    ) -> None:
        """What a commit appended; `before`: the ends when it was sent."""
        for log, seq in _accepted(batch, outcomes):
            if seq <= before.get(log, 0):
                key = workspace_id, log
                self.suspects[key] = min(seq - 1, self.suspects.get(key, seq - 1))
            self.saw(workspace_id, log, seq)

    def known(self, workspace_id: str, batch: Batch) -> dict[str, int]:
        """The ends of the logs that a batch appends to."""
        logs = {op.log for op in batch.ops if isinstance(op, Append)}
        return {log: self.end(workspace_id, log) for log in logs}

    def lost(self, log: Log, whole_to: int, end: int) -> None:
        """What followed `whole_to` is gone; the log goes on and ends at `end` now."""
        self._ends[log] = end
        self.suspects.pop(log, None)
        self._setbacks[log] = Setback(self._setbacks.get(log, NEVER).times + 1, whole_to)

    def setback(self, workspace_id: str, log: str) -> Setback:
        return self._setbacks.get((workspace_id, log), NEVER)


def _accepted(batch: Batch, outcomes: Sequence[Appended]) -> Iterator[tuple[str, int]]:
    """(log, `seq`) of what is new."""
    appends = (op for op in batch.ops if isinstance(op, Append))
    for op, outcome in zip(appends, outcomes, strict=True):
        if outcome.status == "accepted":
            yield op.log, outcome.seq
