"""How much is asked under a policy, and how much may be asked once more."""

from typing import Final

RATE_S: Final = 10


class Rate:
    """Requests a second over the last ten."""

    __slots__ = ("_counts", "_newest", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * RATE_S
        self._newest = 0
        self._sum = 0

    def __repr__(self) -> str:
        return f"<Rate {self._sum / RATE_S} a second>"

    def add(self, now: float, times: int = 1) -> None:
        if now >= self._newest + 1:
            self._advance(int(now))
        self._counts[self._newest % RATE_S] += times
        self._sum += times

    @property
    def is_some(self) -> bool:
        return self._sum > 0

    def per_s(self, now: float) -> float:
        self._advance(int(now))
        return self._sum / RATE_S

    def _advance(self, second: int) -> None:
        if second - self._newest >= RATE_S:
            self._counts = [0] * RATE_S
            self._sum, self._newest = 0, second
        while self._newest < second:
            self._newest += 1
            place = self._newest % RATE_S
            self._sum -= self._counts[place]
            self._counts[place] = 0


class Budget:
    """Attempts beside the first one, so that a provider in trouble is not asked even more (§8.3).

    `enter` and `leave` a request, `charge` and `refund` an attempt."""

    __slots__ = ("charged", "in_flight", "least", "percent")

    def __init__(self, percent: int, least: int) -> None:
        self.percent = percent
        self.least = least
        self.in_flight = 0
        self.charged = 0

    def __repr__(self) -> str:
        return f"<Budget {self.charged} charged, {self.in_flight} in flight>"

    @property
    def has_room(self) -> bool:
        return self.charged < max(self.least, self.percent * self.in_flight // 100)

    def charge(self) -> bool:
        """Take one; False: there is none."""
        if not self.has_room:
            return False
        self.charged += 1
        return True
