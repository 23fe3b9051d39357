"""What workers are told of policies: those of a turn in one message for each worker."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from proxy.app.messages import standing_doc
from proxy.link.peers import Workers
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.routing.standing import Standing

MOST: Final = 64  # policies in one message: about 20 KB, a millisecond of a worker


class Pushing:
    """Policies whose state workers do not know yet.  Each is kept once, however often it changes:
    what is told is how it stands when it is told."""

    def __init__(self, clock: Clock, workers: Callable[[], Workers]) -> None:
        self._clock = clock
        self._workers = workers
        self._changed: dict[int, Standing] = {}  # by identity
        self._over: dict[int, set[str]] = {}  # the same: what is limited no more

    def __repr__(self) -> str:
        return f"<Pushing {len(self._changed)} policies>"

    def __contains__(self, standing: Standing) -> bool:
        return id(standing) in self._changed

    def add(self, standing: Standing, over: Sequence[str] = ()) -> None:
        """It has changed.  `over`: the endpoints that are limited no more."""
        self._changed[id(standing)] = standing
        if over:
            self._over.setdefault(id(standing), set()).update(over)

    def send(self) -> list[Standing]:
        """Tell all workers; returns what was told."""
        told, self._changed = list(self._changed.values()), {}
        over, self._over = self._over, {}
        slots = self._workers().slots() if told else ()
        for docs in self._docs(told, over) if slots else ():
            for slot in slots:
                self._workers().send(slot, {"t": "standings", "of": docs})
        return told

    def introduce(self, slot: int, standings: Iterable[Standing]) -> Iterator[None]:
        """Tell one worker all that is known, a message in each step.  `more`: that is not all."""
        known = [
            each for each in standings
            if each.limited or any(breaker.version for breaker in each.breakers.values())
        ]  # fmt: skip
        told = 0
        for docs in self._docs(known, {}):
            told += len(docs)
            more = told < len(known)
            self._workers().send(slot, {"t": "standings", "of": docs, "more": more})
            yield
        if not known:
            self._workers().send(slot, {"t": "standings", "of": [], "more": False})

    def _docs(
        self, standings: Iterable[Standing], over: Mapping[int, set[str]]
    ) -> Iterator[list[Json]]:
        left = iter(standings)
        while part := list(islice(left, MOST)):
            now = self._clock.monotonic()
            yield [
                standing_doc(each, now, sorted(over.get(id(each), set()) - each.limited.keys()))
                for each in part
            ]
