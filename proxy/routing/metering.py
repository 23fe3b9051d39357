"""How the limits of a node hold over several processes: what each has taken, brought together.

A worker decides by itself.  Four times a second it says what it has taken so far of what was used
lately (`WorkerMeters.report`), and hears how far the node's own bucket is used and how much of its
taking is counted there (`NodeMeters.take`); all in nanoseconds of the minute, so that nobody has
to know the limits.  All figures are sums since a process began: a message that is lost costs
nothing, and whoever begins anew is told.

How exact it is.  A worker that others do not compete with may take the whole limit.  Of those that
took something in the last ten seconds each takes at most its part of what is free, or one request,
until it hears of the others again: together they go over the limit by one request less than they
are.  Workers that were idle before may each take all that is free, once, within the first quarter
of a second.  Whatever was taken in excess is owed and waited for, so over time the rate holds.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from proxy.model.coord import NS
from proxy.model.exchange import Json
from proxy.routing.limits import MOST_METERS, NO_BOUND, Limiter, Meter, Moment, Name

EXCHANGE_S: Final = 0.25
ROWS: Final = 1000  # in one message
LATELY_NS: Final = 60 * NS
COMPETES_NS: Final = 10 * NS
GONE_NS: Final = 5 * NS  # a worker that was not heard of for so long has nothing under way
ALONE_NS: Final = 3 * NS  # without an answer

Doc = dict[str, Json]


class WorkerMeters:
    """A worker's end.  `run` tells this process from the one before it."""

    def __init__(self, limiter: Limiter, run: str) -> None:
        self._limiter = limiter
        self._run = run
        self._asked_at_ns: int | None = None
        self._sharers = 1

    def __repr__(self) -> str:
        return f"<WorkerMeters {self._run}, {self._sharers} share>"

    def report(self, moment: Moment) -> Doc | None:
        """What to say now; None: nothing was used lately.  Who gets no answers acts alone: with
        its part of each limit."""
        now_ns = moment.now_ns
        meters = self._limiter.lately(now_ns - LATELY_NS, ROWS)
        if not meters:
            self._asked_at_ns = None
            return None
        if self._asked_at_ns is None:
            self._asked_at_ns = now_ns
        elif now_ns - self._asked_at_ns > ALONE_NS:
            self._limiter.divisor = self._sharers
            for meter in meters:
                meter.requests.share_ns = meter.tokens.share_ns = NO_BOUND
        rows: list[Json] = []
        for meter in meters:
            meter.on(moment.day)
            rows.append([
                *meter.name, meter.agreed,
                meter.requests.taken_ns, meter.requests.used_ns(now_ns),
                meter.tokens.taken_ns, meter.tokens.used_ns(now_ns),
                meter.under_way, meter.day, meter.spent_nano,
            ])  # fmt: skip
        return {"run": self._run, "rows": rows}

    def hear(self, said: Doc, moment: Moment) -> None:
        """The answer.  Raises ValueError for what is none."""
        divisor, sharers, rows = said.get("divisor"), said.get("sharers"), said.get("rows")
        if type(divisor) is not int or type(sharers) is not int or type(rows) is not list:
            raise ValueError("not an answer about limits")
        self._asked_at_ns = None
        self._sharers = max(1, sharers)
        self._limiter.divisor = max(1, divisor)
        for row in rows:
            name, figures = _row(row, 10)
            meter = self._limiter.known(name)
            if meter is not None:
                _agree(meter, figures, moment)


def _agree(meter: Meter, figures: list[int], moment: Moment) -> None:
    (
        requests_ns, requests_counted, requests_by, tokens_ns, tokens_counted, tokens_by,
        elsewhere, day, spent, spent_counted,
    ) = figures  # fmt: skip
    meter.agreed = True
    meter.requests.agree(moment.now_ns, requests_ns, requests_counted, requests_by)
    meter.tokens.agree(moment.now_ns, tokens_ns, tokens_counted, tokens_by)
    meter.elsewhere = elsewhere
    meter.on(moment.day)
    if day == meter.day:
        meter.others_nano = max(0, spent - spent_counted)


def _row(row: Json, figures: int) -> tuple[Name, list[int]]:
    """Raises ValueError."""
    if type(row) is not list or len(row) != 3 + figures:
        raise ValueError("not a row about limits")
    scope, workspace_id, doc_id, *rest = row
    counts = [int(each) for each in rest if isinstance(each, int)]
    if not isinstance(workspace_id, str) or not isinstance(doc_id, str) or len(counts) != figures:
        raise ValueError("not a row about limits")
    name = name_of(str(scope), workspace_id, doc_id)
    if name is None:
        raise ValueError("not a row about limits")
    return name, counts


def name_of(scope: str, workspace_id: str, doc_id: str) -> Name | None:
    """The name that was said; None: it is none."""
    if scope == "route":
        return "route", workspace_id, doc_id
    return ("key", workspace_id, doc_id) if scope == "key" else None


# --- the control process


@dataclass(slots=True)
class _Part:
    """What a node's bucket holds of one worker."""

    counted_ns: int = 0
    moved_at_ns: int = -COMPETES_NS


@dataclass(slots=True)
class _Worker:
    """What one worker last said of one meter."""

    run: str
    agreed: bool = False
    requests: _Part = field(default_factory=_Part)
    tokens: _Part = field(default_factory=_Part)
    under_way: int = 0
    heard_at_ns: int = 0
    day: int = 0
    spent_nano: int = 0

    def forgot(self, agreed: bool, requests_ns: int) -> bool:
        """Its meter was made anew: the limit was away, or there were too many."""
        return not agreed and (self.agreed or requests_ns < self.requests.counted_ns)


class _Bucket:
    """The node's.  `total_ns`: all that was taken on this node."""

    __slots__ = ("tat_ns", "total_ns")

    def __init__(self) -> None:
        self.tat_ns = self.total_ns = 0

    def add(self, now_ns: int, more_ns: int) -> None:
        self.tat_ns = max(now_ns, self.tat_ns) + more_ns

    def count(self, part: _Part, now_ns: int, taken_ns: int) -> None:
        """So much a worker has taken in all."""
        more_ns = taken_ns - part.counted_ns
        if more_ns:
            self.add(now_ns, more_ns)
            self.total_ns += more_ns
            part.counted_ns = taken_ns
            part.moved_at_ns = now_ns

    def adopt(self, part: _Part, now_ns: int, taken_ns: int, used_ns: int, agreed: bool) -> None:
        """The first word of a worker: what was taken long ago counts no more, and of what it has
        agreed upon with the process before us we know the same from the others."""
        if agreed:
            self.tat_ns = max(self.tat_ns, now_ns + used_ns)
            part.counted_ns = taken_ns
            part.moved_at_ns = now_ns if used_ns else part.moved_at_ns
        else:
            part.counted_ns = taken_ns - min(taken_ns, used_ns)
            self.count(part, now_ns, taken_ns)

    def used_ns(self, now_ns: int) -> int:
        return max(0, self.tat_ns - now_ns)


class NodeMeter:
    """One route or key, over all workers of the node.

    `abroad`: requests under way on other nodes.  A day's cost is what the store has of it, or what
    it had when we first looked and what was reported since, whichever is more: the store counts
    every node and every process that was, the reports are there a moment earlier.
    """

    __slots__ = ("_base_nano", "_live_nano", "_stored_nano", "_workers", "abroad", "day",
                 "requests", "tokens")  # fmt: skip

    def __init__(self) -> None:
        self.requests, self.tokens = _Bucket(), _Bucket()
        self._workers: dict[int, _Worker] = {}
        self.abroad = 0
        self.day = self._live_nano = self._stored_nano = 0
        self._base_nano: int | None = None

    def __repr__(self) -> str:
        return f"<NodeMeter of {len(self._workers)} workers>"

    def under_way(self, now_ns: int, but: int | None = None) -> int:
        """Requests under way on this node, but for those of one worker."""
        return sum(
            worker.under_way
            for slot, worker in self._workers.items()
            if slot != but and now_ns - worker.heard_at_ns <= GONE_NS
        )

    @property
    def spent_nano(self) -> int:
        return max(self._stored_nano, (self._base_nano or 0) + self._live_nano)

    def stored(self, day: int, nano: int) -> None:
        """The store has so much of that day."""
        if day != self.day:
            return
        if self._base_nano is None:
            self._base_nano = max(0, nano - self._live_nano)
        self._stored_nano = nano

    def take(self, slot: int, run: str, figures: list[int], now_ns: int) -> list[Json]:
        """What a worker says, and the answer to it."""
        agreed, requests_ns, requests_used, tokens_ns, tokens_used, under_way, day, spent = figures
        worker = self._workers.get(slot)
        if worker is None or worker.run != run or worker.forgot(bool(agreed), requests_ns):
            worker = self._workers[slot] = _Worker(run)
            self.requests.adopt(worker.requests, now_ns, requests_ns, requests_used, bool(agreed))
            self.tokens.adopt(worker.tokens, now_ns, tokens_ns, tokens_used, bool(agreed))
            if agreed:
                worker.day, worker.spent_nano = day, spent
        else:
            self.requests.count(worker.requests, now_ns, requests_ns)
            self.tokens.count(worker.tokens, now_ns, tokens_ns)
        worker.agreed = bool(agreed)
        worker.under_way, worker.heard_at_ns = under_way, now_ns
        self._spend(worker, day, spent)
        return [
            self.requests.used_ns(now_ns), requests_ns, self._by("requests", slot, now_ns),
            self.tokens.used_ns(now_ns), tokens_ns, self._by("tokens", slot, now_ns),
            self.under_way(now_ns, slot) + self.abroad,
            day, self.spent_nano if day == self.day else spent, spent,
        ]  # fmt: skip

    def _spend(self, worker: _Worker, day: int, spent: int) -> None:
        if day > self.day:
            self.day, self._live_nano, self._stored_nano, self._base_nano = day, 0, 0, None
        if day != self.day:
            return
        self._live_nano += spent - (worker.spent_nano if worker.day == day else 0)
        worker.day, worker.spent_nano = day, spent

    def _by(self, kind: str, slot: int, now_ns: int) -> int:
        """How many compete, with that worker."""
        found = 0
        for other, worker in self._workers.items():
            part = worker.requests if kind == "requests" else worker.tokens
            found += other == slot or now_ns - part.moved_at_ns < COMPETES_NS
        return found


class NodeMeters:
    """The control process's end.  `divisor`: by how many nodes each limit is shared while they do
    not hear of each other."""

    def __init__(self, most: int = MOST_METERS) -> None:
        self._most = most
        self.meters: OrderedDict[Name, NodeMeter] = OrderedDict()
        self.divisor = 1

    def __repr__(self) -> str:
        return f"<NodeMeters {len(self.meters)}>"

    def take(self, slot: int, said: Doc, workers: int, now_ns: int) -> Doc:
        """What a worker says, and the answer to it; `workers` serve on this node.  Raises
        ValueError for what is no report."""
        run, rows = said.get("run"), said.get("rows")
        if not isinstance(run, str) or not isinstance(rows, list):
            raise ValueError("not a report about limits")
        parsed = [_row(row, 8) for row in rows]
        answers: list[Json] = [
            [*name, *self.meter(name).take(slot, run, figures, now_ns)] for name, figures in parsed
        ]
        sharers = max(1, workers) * self.divisor
        return {"divisor": self.divisor, "sharers": sharers, "rows": answers}

    def meter(self, name: Name) -> NodeMeter:
        meter = self.meters.get(name)
        if meter is None:
            meter = self.meters[name] = NodeMeter()
            if len(self.meters) > self._most:
                self.meters.popitem(last=False)
        self.meters.move_to_end(name)
        return meter
