"""`python -m tests.app.healing`: an outage that heals, seen by the workers of one node: who probes
when, and when traffic is back.

The kernel spreads connections over workers by chance, so every request comes to any of them; the
processes are the real ones but for their sockets and clocks (`tests.kit.net`).
"""

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.gateway.flights import Flight
from proxy.model.failover import Outcome
from proxy.routing.states import State
from tests.kit.net import Net, Worker

STEP_S = 0.05
OUTAGE_S = 60.0
LONGEST_S = 240.0  # after it
TOOK_S = 0.25  # until an answer is there


@dataclass(frozen=True)
class Healed:
    """`tried`: requests of the primary in the outage; then seconds after it: to the first answer of
    the primary, and until all traffic is back.  `waits_s`: from the end of each cool-down to the
    first probe.  `most`: probes under way at once."""

    tried: int
    first_s: float
    back_s: float
    waits_s: tuple[float, ...]
    most: int


class Outage:
    """The primary fails from the first request on, for `OUTAGE_S`.  A request fails at once."""

    def __init__(self, workers: int, every_s: float, seed: int) -> None:
        self._chance = random.Random(seed)
        self._net = Net(workers, chance=self._chance.random)
        self._every_s = every_s
        self._due: list[tuple[float, Worker, Flight]] = []
        self.tried = 0
        self.most = 0
        self.first_s = 0.0
        self.waits_s: list[float] = []
        self._probing_since: float | None = None
        self._net.wait(self._chance.random())
        self._began = self._net.clock.monotonic()

    @property
    def _at(self) -> float:
        """Seconds since it began."""
        return self._net.clock.monotonic() - self._began

    @property
    def _state(self) -> State:
        return self._net.standing.breakers["openai"].state

    def run(self) -> Healed:
        asked, was = 0, State.CLOSED
        while self._at < OUTAGE_S + LONGEST_S:
            if self._at >= asked * self._every_s:
                self._ask(self._chance.choice(list(self._net.workers.values())))
                asked += 1
            self._net.wait(STEP_S)
            self._land()
            if self._state is not was and self._state is State.PROBING:
                self._probing_since = self._at
            was = self._state
            if self.first_s and self._state is State.CLOSED:
                break
        first_s, back_s = self.first_s or LONGEST_S, self._at - OUTAGE_S
        return Healed(self.tried, first_s, back_s, tuple(self.waits_s), self.most)

    def _ask(self, worker: Worker) -> None:
        for _ in range(2):  # a closed one is asked once more
            flight = worker.fly()
            if flight is None:
                return
            if flight.permit is not None and self._probing_since is not None:
                self.waits_s.append(self._at - self._probing_since)
                self._probing_since = None
            if self._at >= OUTAGE_S:
                self.first_s = self.first_s or self._at - OUTAGE_S
                self._due.append((self._at + TOOK_S, worker, flight))
                probes = sum(each.permit is not None for _, _, each in self._due)
                self.most = max(self.most, probes)
                return
            self.tried += 1
            closed = worker.state() is State.CLOSED
            flight.ended(worker.clock.monotonic(), Outcome.UPSTREAM_5XX)
            if not closed or worker.state() is not State.CLOSED:
                return

    def _land(self) -> None:
        due = [each for each in self._due if each[0] <= self._at]
        self._due = [each for each in self._due if each[0] > self._at]
        for _, worker, flight in due:
            flight.ended(worker.clock.monotonic(), Outcome.SUCCESS)
        if due:
            self._net.settle()


def line(workers: int, every_s: float, found: Sequence[Healed]) -> str:
    """The figures of one row."""
    first = sorted(each.first_s for each in found)
    back = sorted(each.back_s for each in found)
    waits = sorted(wait for each in found for wait in each.waits_s)
    in_time = sum(each <= 24 for each in first) / len(first)
    parts = [f"{_share(of, 0.5):6.1f}{_share(of, 0.99):6.1f}" for of in (waits, first, back)]
    tried, most = max(each.tried for each in found), max(each.most for each in found)
    return f"{workers:>7}{every_s:>8g} " + "  ".join(parts) + f"{in_time:>8.1%}{tried:>7}{most:>6}"


def _share(of: Sequence[float], share: float) -> float:
    return of[min(len(of) - 1, int(share * len(of)))] if of else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.app.healing", description="An outage of 60 s, and the way back."
    )
    parser.add_argument("--seeds", type=int, default=20, help="of each row")
    seeds = parser.parse_args().seeds
    say = sys.stdout.write
    say(f"{'':>16}{'probe wait':>12}{'first':>14}{'all back, s':>14}\n")
    say("workers every s" + "   p50   p99  " * 3 + " <=24 s  tried  once\n")
    for workers in (1, 2, 4, 8):
        for every_s in (8.0, 4.0, 1.0, 0.1):
            found = [Outage(workers, every_s, seed).run() for seed in range(seeds)]
            say(line(workers, every_s, found) + "\n")


if __name__ == "__main__":
    main()
