"""One request under way: what the stages hand on to each other, and what the gateway is made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from proxy.gateway.admission import Visit
from proxy.gateway.flights import Flight, Flights
from proxy.gateway.opinions import Opinions
from proxy.gateway.outlet import Keeping
from proxy.gateway.snapshot import EndpointView, RouteView, Rules
from proxy.guardrails.permits import Permits
from proxy.guardrails.placeholders import Placeholders
from proxy.guardrails.sampling import ALL
from proxy.model.exchange import Exchange, Json
from proxy.model.failover import FailoverPolicy
from proxy.model.ports import Clock, Downstream, Ids, Journal, Observe, TransportFault
from proxy.model.records import RequestRecord
from proxy.routing.limits import Hold, Limiter
from proxy.routing.standing import Standing
from proxy.wire.dialect import DialectReader

T = TypeVar("T")


class OffLoop(Protocol):
    """Runs long work beside the loop (guarded bodies over 64 KiB)."""

    async def run(self, work: Callable[[], T]) -> T: ...


class UnderWay(Protocol):
    """An answer that has not ended."""

    @property
    def begun(self) -> bool: ...
    def cancel(self) -> None: ...
    def failed(self, fault: TransportFault) -> None: ...


class Beside(Protocol):
    """Checks of the request that go on while it is answered."""

    async def verdict(self) -> None:
        """Wait for them.  Raises Blocked, unless they only watch."""
        ...

    def cancel(self) -> None: ...


def _nobody_hears(_: str, __: str, ___: str, ____: dict[str, Json]) -> None:
    pass


class Waits(Protocol):
    """Callers of streams who have heard nothing yet (`early.py`)."""

    def waits(self, turn: "Turn") -> None: ...
    def over(self, turn: "Turn") -> None: ...
    def sweep(self, now: float) -> None: ...


@dataclass(slots=True)
class Gateway:
    """What the data plane is made of; built by app.py, faked in tests."""

    rules: Callable[[], Rules]
    clock: Clock
    ids: Ids
    journal: Journal
    line_of: Callable[[RequestRecord], bytes]
    is_critical: Callable[[RequestRecord], bool]
    observe: Observe
    off_loop: OffLoop
    server_key: bytes
    flights: Flights  # attempts under a failover policy, and how endpoints stand
    early: Waits
    draining: Callable[[], bool] = field(default=lambda: False)
    in_flight: int = 0
    answers: set[UnderWay] = field(default_factory=set)  # under way, for the drain
    opinions: Opinions = field(default_factory=Opinions)  # of checks outside
    limiter: Limiter = field(default_factory=Limiter)  # what is used of limits
    # (workspace, type, route, payload) of an event that is no request
    event: Callable[[str, str, str, dict[str, Json]], None] = field(default=_nobody_hears)
    keeping: Keeping = field(default_factory=Keeping)  # what callers have of their streams


@dataclass(slots=True, init=False)
class Turn:
    """One request, from the moment its route is known.

    `guarded`: a pack looks at the answer, or placeholders are undone in it.  `placeholders`: those
    that its request has issued.  `rerouted`: the endpoints that a rule put in the place of the
    route's own.  `total_due`: the deadline over all attempts, in seconds of the monotonic clock.
    `permits`: None where no rule says who may use what.

    Like `RequestRecord` it has an initialiser of its own: one that is generated is interpreted, and
    costs each request a microsecond.
    """

    visit: Visit
    route: RouteView
    exchange: Exchange
    dialect: DialectReader | None
    record: RequestRecord
    caller: Downstream
    started: float
    total_due: float
    guarded: bool
    skipped: list[tuple[str, str]]  # endpoint and reason
    placeholders: Placeholders | None
    permits: Permits | None
    rerouted: tuple[EndpointView, ...] | None
    draw: float  # by which sampled rules look at it or do not
    beside: Beside | None  # the answer waits for it
    aside: Beside | None  # only the record does
    flight: Flight | None  # the attempt whose answer is being handed on
    starved: bool  # a retry was not made for lack of budget
    entered: Standing | None  # its request is counted among those in flight
    charged: Standing | None  # an attempt of it takes from that budget
    hold: Hold | None  # what it has of its limits
    limit_lines: bytes  # `x-parapet-ratelimit-`: what was left of them
    early: bool  # its caller has got headers before anybody has answered
    committed: bool  # its stream has died, and the caller has some of it

    def __init__(
        self,
        visit: Visit,
        route: RouteView,
        exchange: Exchange,
        dialect: DialectReader | None,
        record: RequestRecord,
        caller: Downstream,
        started: float,
        guarded: bool,
    ) -> None:
        self.visit = visit
        self.route = route
        self.exchange = exchange
        self.dialect = dialect
        self.record = record
        self.caller = caller
        self.started = started
        self.total_due = started + route.total_s
        self.guarded = guarded
        self.skipped = []
        self.placeholders = self.permits = self.rerouted = None
        self.draw = ALL
        self.beside = self.aside = self.flight = None
        self.entered = self.charged = self.hold = None
        self.limit_lines = b""
        self.starved = self.early = self.committed = False

    def land(self, now: float) -> None:
        """The request is over: what became of its last attempt is known, and nobody waits for
        checks that are still asked."""
        if self.beside is not None:
            self.beside.cancel()
        if self.aside is not None:
            self.aside.cancel()
        if self.hold is not None:
            self.hold.release()
        if self.flight is not None and self.record.attempts:
            self.flight.ended(now, self.record.attempts[-1].outcome)
        if self.entered is not None:
            self.entered.budget.in_flight -= 1
            self.entered = None
        if self.charged is not None:
            self.charged.budget.charged -= 1
            self.charged = None

    @property
    def limited(self) -> bool:
        """Its key or its route has limits."""
        key = self.visit.key
        return self.route.limits is not None or (key is not None and key.limits is not None)

    @property
    def head_lines(self) -> bytes:
        """What every answer of its route says in its head."""
        return self.route.head_lines + self.limit_lines

    @property
    def order(self) -> tuple[EndpointView, ...]:
        """The endpoints that may be asked, in order."""
        return self.route.order if self.rerouted is None else self.rerouted

    @property
    def policy(self) -> FailoverPolicy | None:
        """The failover policy in charge: a rule that reroutes takes its place."""
        return self.route.policy if self.rerouted is None else None

    @property
    def buffers(self) -> bool:
        """Nothing of a stream leaves before it is whole."""
        return self.route.buffers and self.policy is not None and not self.committed

    @property
    def must_be_checked(self) -> bool:
        """An answer that cannot be looked at must not leave."""
        return self.route.stops_answers or self.placeholders is not None

    @property
    def standing(self) -> Standing | None:
        """How the endpoints of that policy stand."""
        return self.route.standing if self.rerouted is None else None

    @property
    def chained(self) -> bool:
        """More than one endpoint may be asked, so what one of them says is not the last word."""
        return len(self.order) > 1 if self.rerouted is not None else self.policy is not None
