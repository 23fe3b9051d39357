"""Limits over several nodes: each says what it took in this minute, and hears what others did.

A node writes its own sums, never adds to a common one: said twice is said once.  Sums of a minute
lie together and are gone with it; those of the minutes before and after are looked at, too, since
no two clocks agree.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from proxy.routing.limits import WINDOW_NS, Name
from proxy.routing.metering import NodeMeter, NodeMeters

MINUTE_MS: Final = 60_000
SETTLE_MS: Final = 3_000  # into a minute: others have not all written yet
ROWS: Final = 1000

Field = tuple[str, Name]  # a process and what it tells of
Sums = tuple[int, int, int]  # of requests and of tokens, in nanoseconds; requests under way


class Abroad:
    """What this process has told and heard.  `me` names it among all; `run` tells it from the one
    before it on this node, whose sums the workers know."""

    def __init__(self, meters: NodeMeters, me: str, run: str) -> None:
        self._meters = meters
        self._me = me
        self.process = f"{me}.{run}"
        self._minute = -1
        self._since: dict[Name, tuple[int, int]] = {}  # what was told of in minutes before
        self._told: dict[Name, Sums] = {}
        self._heard: dict[int, dict[Field, Sums]] = {}
        self._busy: set[Name] = set()  # with requests under way on other nodes

    def __repr__(self) -> str:
        return f"<Abroad {self._me}, {len(self._told)} told>"

    def mine(self, now_ms: int, now_ns: int) -> tuple[int, dict[Name, Sums]]:
        """The minute, and what is new since it was `settled` last."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute = minute
            for name, told in self._told.items():
                since = self._since.get(name, (0, 0))
                self._since[name] = since[0] + told[0], since[1] + told[1]
            for name in [each for each in self._since if each not in self._meters.meters]:
                del self._since[name]
            self._told.clear()
        found: dict[Name, Sums] = {}
        for name, meter in reversed(self._meters.meters.items()):
            since = self._since.get(name, (0, 0))
            sums = (
                max(0, meter.requests.total_ns - since[0]),
                max(0, meter.tokens.total_ns - since[1]),
                meter.under_way(now_ns),
            )
            if sums != self._told.get(name, (0, 0, 0)):
                found[name] = sums
            if len(found) == ROWS:
                break
        return minute, found

    def settled(self, said: Mapping[Name, Sums]) -> None:
        """That was written."""
        self._told.update(said)

    def minutes(self, now_ms: int) -> tuple[int, ...]:
        """Where to look."""
        minute = now_ms // MINUTE_MS
        return minute - 1, minute, minute + 1

    def hear(
        self, found: Mapping[int, Iterable[tuple[Field, Sums]]], now_ms: int, now_ns: int
    ) -> None:
        """What lies in those minutes."""
        first = not self._heard
        busy: dict[Field, int] = {}
        early = now_ms % MINUTE_MS < SETTLE_MS
        heard: dict[int, dict[Field, Sums]] = {}
        for minute in sorted(found):
            before, rows = self._heard.get(minute, {}), heard.setdefault(minute, {})
            for field, sums in found[minute]:
                process, name = field
                if process.rpartition(".")[0] == self._me:
                    continue
                rows[field] = sums
                if not first:
                    _add(self._meters.meter(name), before.get(field, (0, 0, 0)), sums, now_ns)
                if minute >= now_ms // MINUTE_MS or early:
                    busy[field] = sums[2]
        if first:
            self._begin(heard.get(now_ms // MINUTE_MS, {}), now_ns)
        self._heard = heard
        under_way: dict[Name, int] = dict.fromkeys(self._busy, 0)
        for (_, name), running in busy.items():
            under_way[name] = under_way.get(name, 0) + running
        for name, running in under_way.items():
            self._meters.meter(name).abroad = running
        self._busy = {name for name, running in under_way.items() if running}

    def _begin(self, rows: Mapping[Field, Sums], now_ns: int) -> None:
        """Of what was taken before us our own workers may know already."""
        for part in (0, 1):
            sums: dict[Name, int] = {}
            for (_, name), row in rows.items():
                sums[name] = sums.get(name, 0) + row[part]
            for name, taken_ns in sums.items():
                meter = self._meters.meter(name)
                bucket = meter.tokens if part else meter.requests
                bucket.tat_ns = max(bucket.tat_ns, now_ns + min(taken_ns, WINDOW_NS))


def _add(meter: NodeMeter, before: Sums, sums: Sums, now_ns: int) -> None:
    if sums[0] != before[0]:
        meter.requests.add(now_ns, sums[0] - before[0])
    if sums[1] != before[1]:
        meter.tokens.add(now_ns, sums[1] - before[1])
