"""How the automata of a worker are: their states, and what they have done since the last look.

Guards come and go with snapshots; what is counted never goes back.
"""

from collections.abc import Iterable

from proxy.guardrails.automaton import Automaton
from proxy.guardrails.engine import Guard

Counts = tuple[int, int, int]  # flushes, soft syncs, commits


class Health:
    """Looks at the guards in force now and then."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Automaton, Counts]] = {}

    def look(self, guards: Iterable[Guard]) -> tuple[int, int, int, int]:
        """States now; flushes, soft syncs and commits since the last look."""
        before, self._seen = self._seen, {}
        states = flushes = soft_syncs = commits = 0
        for guard in guards:
            for automaton in guard.automata():
                if id(automaton) in self._seen:
                    continue
                now = automaton.flushes, automaton.soft_syncs, automaton.commits
                self._seen[id(automaton)] = automaton, now
                known = before.get(id(automaton))
                then = known[1] if known is not None else (0, 0, 0)
                states += automaton.states
                flushes += now[0] - then[0]
                soft_syncs += now[1] - then[1]
                commits += now[2] - then[2]
        return states, flushes, soft_syncs, commits

    def __repr__(self) -> str:
        return f"<Health of {len(self._seen)} automata>"
