"""A breaker in a test: its own clock, no jitter, and what it did told in words."""

from typing import Any

from proxy.model.failover import Conditions, Outcome, Recovery
from proxy.routing.breaker import Breaker
from proxy.routing.states import Change, Permit, State

BOTH = {"latency_threshold_ms": 2000, "error_rate_threshold": 0.1}


class Bench:
    """`now` starts at 1,000 s.  Each change is kept: (seconds, state, reason code)."""

    def __init__(self, *, chance: float = 0.5, recovery: Any = None, **conditions: Any) -> None:
        self.breaker = Breaker(
            Conditions(**(conditions or BOTH)), Recovery(**(recovery or {})), lambda: chance
        )
        self.now = 1000.0
        self.told: list[tuple[float, str, str]] = []

    def _tell(self, change: Change | None) -> None:
        if change is not None:
            code = change.reason.code if change.reason else ""
            self.told.append((self.now, str(change.after), code))

    def see(self, outcome: Outcome, times: int = 1, *, every_s: float = 0.0, **said: Any) -> None:
        for _ in range(times):
            self.now += every_s
            self._tell(self.breaker.observe(self.now, outcome, began=self.now, **said))

    def good(self, times: int = 1, *, every_s: float = 0.0) -> None:
        self.see(Outcome.SUCCESS, times, every_s=every_s, quick=True)

    def slow(self, times: int = 1, *, every_s: float = 0.0) -> None:
        """Marked when it crosses the threshold, and ended well."""
        for _ in range(times):
            self.now += every_s
            self._tell(self.breaker.mark_slow(self.now))
            self._tell(self.breaker.observe(self.now, Outcome.SUCCESS, began=self.now))

    def wait(self, seconds: float, *, rps: float = 5.0) -> None:
        """Ticks of 100 ms."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = min(self.now + 0.1, until)
            self._tell(self.breaker.tick(self.now, rps=rps))

    def probe(self, outcome: Outcome, *, slow: bool = False) -> Permit | None:
        permit = self.breaker.permit(self.now, 10)
        if permit is not None:
            if slow:
                self._tell(self.breaker.mark_slow(self.now, permit))
            self._tell(self.breaker.observe(self.now, outcome, began=self.now, permit=permit))
        return permit

    @property
    def state(self) -> State:
        return self.breaker.state

    @property
    def counts(self) -> list[int]:
        return self.breaker.window.totals
