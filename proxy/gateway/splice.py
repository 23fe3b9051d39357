"""A stream that died after its content went out, and the answer of another endpoint that goes on
with it (failover.md §10): R is what the caller has.

    died -> what has he? -> whom to ask? -> prefill or restart -> does it fit? -> it flows on
              |                 |                                    |
              in-band error  <--+------------------------------------+

What the guard held is thrown away: it was never cleared and never sent.  The attempts count like
all others of the request, and each is told with what it has cost.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from proxy.gateway.answer import STREAM, Answer
from proxy.gateway.ask import OFF_LOOP_BYTES
from proxy.gateway.ends import has_died, judge_death, note_attempt, usage_of
from proxy.gateway.going import GoingOn
from proxy.gateway.outlet import Outlet
from proxy.gateway.reach import attempt_at
from proxy.gateway.snapshot import EndpointView, Rules
from proxy.gateway.streamed import HOLD_BYTES
from proxy.gateway.turn import Gateway, Turn
from proxy.gateway.way import Way
from proxy.model.exchange import Refused
from proxy.model.failover import FailoverDecision, FailoverPolicy, Outcome
from proxy.model.observations import StreamRecovery
from proxy.model.records import Attempt
from proxy.model.recovery import Asked, Misfit, Seam
from proxy.routing.failover import Send
from proxy.routing.outcomes import judge_refusal
from proxy.routing.recovery import (
    REFUSED_STATUSES,
    PrefillSeam,
    RestartSeam,
    hindrance,
    manner_of,
    once_more,
)
from proxy.wire import jsonbody
from proxy.wire.continuing import Continued, Told, continued_of
from proxy.wire.usage import estimate_bytes

_BEGUN: Final = (Outcome.SUCCESS, Outcome.BLOCKED)
_WHY: Final[Mapping[Misfit, str]] = {
    "misfit": "the continuation begins another word",
    "diverged": "the second answer is another one",
}
_LAST: Final = frozenset({"recovered", "blocked", "diverged"})


def open_splice(
    turn: Turn, answer: Answer, attempt: Attempt, rules: Rules, gateway: Gateway
) -> "Splice | None":
    """None: whatever becomes of this stream, no other answer goes on with it."""
    policy, way = turn.policy, answer.way
    if policy is None or way is None or turn.route.doc.stream_recovery == "off":
        return None
    if not policy.request_failover.enabled or len(turn.exchange.body) > HOLD_BYTES:
        return None
    continued = continued_of(turn.exchange.surface.operation)
    if continued is None:
        return None
    return Splice(turn, answer, attempt, rules, gateway, policy, way, continued)


class Splice:
    """`answer`, `attempt`: whose text came last.  `next_answer`: the one that is tried."""

    __slots__ = (
        "_continued", "_gateway", "_may_prefill", "_policy", "_rules", "_switch", "_turn", "_way",
        "answer", "attempt", "next_answer", "outlet", "recovered",
    )  # fmt: skip

    def __init__(
        self,
        turn: Turn,
        answer: Answer,
        attempt: Attempt,
        rules: Rules,
        gateway: Gateway,
        policy: FailoverPolicy,
        way: Way,
        continued: Continued,
    ) -> None:
        self._turn = turn
        self.answer = answer
        self.attempt = attempt
        self._rules = rules
        self._gateway = gateway
        self._policy = policy
        self._way = way
        self._continued = continued
        self._may_prefill = True
        self._switch: FailoverDecision | None = None  # to the endpoint that is asked
        self.next_answer: Answer | None = None
        self.outlet = Outlet(turn.caller, gateway.keeping)
        self.recovered = False

    def __repr__(self) -> str:
        return f"<Splice of {self.answer!r}>"

    async def recover(self) -> None:
        """Go on with another answer while the one at hand has died, as often as it may be."""
        self._turn.committed = True
        while has_died(self.answer) and not self._gateway.draining():
            if self.outlet.too_long:
                self._count("none", "not_resumable")
                return
            data, told = self.outlet.released, self._continued.told
            if len(data) > OFF_LOOP_BYTES:
                heard = await self._gateway.off_loop.run(partial(told, data))
            else:
                heard = told(data)
            asked = self._asked()
            self._close(self.answer, self.attempt, len(heard.released.text))
            if hindrance(heard.released, asked):
                self._count("none", "not_resumable")
                return
            if not await self._go_on(heard, asked):
                return

    # --- one death

    async def _go_on(self, told: Told, asked: Asked) -> bool:
        """False: nobody can."""
        while True:
            send = self._next()
            if send is None:
                self._count("none", "no_endpoint")
                return False
            if send.after_s:
                await self._gateway.clock.sleep(send.after_s)
            going_on = self._going_on(told, asked, self._turn.order[send.place])
            manner = "prefill" if going_on is not None else "restart"
            said = await self._try(told, send.place, going_on, charged=send.charged)
            if isinstance(said, Refused):
                self._way.skip(send.place, said.reason)
                continue
            if manner == "prefill" and said in ("refused", "misfit") and self._has_attempts:
                self._count(manner, said)
                manner = "restart"
                said = await self._try(told, send.place, None, charged=False, instead=True)
                if isinstance(said, Refused):
                    continue
            if said == "left":
                return False
            self._count(manner, said)
            if said in _LAST:
                return said == "recovered"

    def _next(self) -> Send | None:
        """Whom to ask: as before any content, and at last the one whose stream was cut."""
        move = self._way.next_move()
        if isinstance(move, Send):
            return move
        way, tried = self._way, self._turn.record.attempts
        return once_more(self.attempt, way.names, tried, way.refused(), self._policy, way.now())

    @property
    def _has_attempts(self) -> bool:
        in_time = self._gateway.clock.monotonic() < self._turn.total_due
        return in_time and len(self._turn.record.attempts) < self._policy.max_attempts

    async def _try(
        self,
        told: Told,
        place: int,
        going_on: GoingOn | None,
        *,
        charged: bool,
        instead: bool = False,
    ) -> Refused | str:
        """Ask, and let flow what fits.  Says what came of it: `recovered`, `blocked`, `failed`,
        `refused`, `misfit`, `diverged`, `left` (the caller).  `instead`: of what it was asked just
        before."""
        gateway, attempts = self._gateway, self._turn.record.attempts
        decisions, known = self._turn.record.decisions, len(self._turn.record.decisions)
        answer = await attempt_at(
            self._turn,
            place,
            self._rules,
            gateway,
            self._way,
            charged=charged,
            going_on=going_on,
        )
        if isinstance(answer, Refused):
            return answer
        if not instead:
            self._switch = decisions[-1] if len(decisions) > known else None
        if self._switch is not None:
            self._tell(self._switch, told, going_on)
        attempt = attempts[-1]
        if attempt.outcome in _BEGUN and answer.mode != STREAM:
            self._no_stream(answer, attempt)
            return "failed"
        if attempt.outcome in _BEGUN:
            return await self._joined(answer, attempt, told, going_on)
        if going_on is None or answer.status not in REFUSED_STATUSES:
            return "failed"
        name = self._turn.order[place].doc.id
        gateway.flights.prefill_refused(self._turn.visit.workspace.id, name)
        return "refused"

    async def _joined(
        self, answer: Answer, attempt: Attempt, told: Told, going_on: GoingOn | None
    ) -> str:
        """An answer has begun: let flow what fits."""
        outlet, text = self.outlet, told.released.text
        seam: Seam = RestartSeam(text)
        more = 0
        if going_on is not None:
            seam = PrefillSeam(text, going_on.discarded)
            more = _tokens(text)
        outlet.joiner, before = told.joiner(seam, more), outlet.joiner
        outlet.source = self.next_answer = answer
        try:
            if answer.over:
                outlet.write(answer.take_held())
            else:
                await answer.flow(outlet)
        finally:
            self._gateway.answers.discard(answer)
        outlet.source = self.next_answer = None
        pump = answer.pump
        blocked = pump is not None and pump.blocked is not None
        if answer.fault is not None and answer.fault.phase == "caller":
            self._take_over(answer, attempt)
            return "left"
        if seam.fault or not (blocked or seam.passed):
            outlet.joiner = before
            self._may_prefill = self._may_prefill and going_on is None
            self._close(answer, attempt, None, seam.fault)
            return seam.fault or "failed"
        self._take_over(answer, attempt)
        return "blocked" if blocked else "recovered"

    # --- what is sent

    def _going_on(self, told: Told, asked: Asked, candidate: EndpointView) -> GoingOn | None:
        """What a prefill needs.  None: it cannot be one."""
        turn, released = self._turn, told.released
        supports = candidate.doc.supports_prefill and self._gateway.flights.takes_prefill(
            turn.visit.workspace.id, candidate.doc.id
        )
        carried = self._carried(released.text) if supports and self._may_prefill else None
        manner = manner_of(released, asked, supports_prefill=supports, carries=carried is not None)
        if manner == "restart" or carried is None:
            return None
        text, going_on = carried
        doc = turn.exchange.doc or jsonbody.read_object(turn.exchange.body)
        body = self._continued.going_on(
            turn.exchange.body, doc, text.rstrip(), _tokens(released.text)
        )
        going_on.exchange = replace(turn.exchange, body=body, doc=None)
        return going_on

    def _carried(self, released: str) -> tuple[str, GoingOn] | None:
        """R as the rules let it out, and where they stand.  None: that cannot be handed on."""
        answer, guard = self.answer, self._turn.route.guard
        texts = answer.pump.texts if answer.pump is not None else None
        if texts is None:
            return released, GoingOn(self._turn.exchange)
        if answer.gate is not None or guard is None or guard.schemas:
            return None  # what looks at whole answers looks at a whole one
        key = texts.last_lane()
        if key is None:
            return None
        lane = texts.lanes[key]
        judged = released if lane is None else lane.as_judged(released)
        if judged is None:
            return None
        held = lane.held_text if lane is not None else ""
        return judged, GoingOn(self._turn.exchange, texts, key, answer.restoration, held)

    def _asked(self) -> Asked:
        exchange = self._turn.exchange
        return self._continued.asked(exchange.doc or jsonbody.read_object(exchange.body))

    # --- what is told

    def _tell(self, decision: FailoverDecision, told: Told, going_on: GoingOn | None) -> None:
        decision.recovery = "restart" if going_on is None else "prefill"
        decision.resumed_at_chars = len(told.released.text)
        if decision.reason_code == "stream_cut":
            decision.trigger_condition = f"stream cut after {len(told.released.text)} chars"

    def _close(
        self, answer: Answer, attempt: Attempt, chars: int | None, misfit: Misfit = ""
    ) -> None:
        """The attempt is over, before its answer was whole."""
        turn, pump, flight = self._turn, answer.pump, self._turn.flight
        assert pump is not None
        judge_death(turn, answer, attempt, chars)
        if misfit:
            attempt.outcome, attempt.why = Outcome.CANCELLED, _WHY[misfit]
        note_attempt(turn, answer, attempt, self._gateway)
        attempt.usage = usage_of(turn, answer)
        attempt.model = pump.reader.model or answer.plan.model
        if flight is None:
            return
        now = self._gateway.clock.monotonic()
        flight.ended(now, attempt.outcome)
        turn.flight = None
        if pump.error is not None and not misfit:
            own = answer.candidate.own_credential
            if judge_refusal(pump.error, own_credential=own) is Outcome.RATE_LIMITED:
                hint_s = pump.error.retry_after_s
                self._gateway.flights.limited(flight, now, hint_s)

    def _no_stream(self, answer: Answer, attempt: Attempt) -> None:
        """It has answered with something else."""
        answer.cancel()
        self._gateway.answers.discard(answer)
        attempt.outcome, attempt.why = Outcome.BAD_ANSWER, "no stream"
        if self._turn.flight is not None:
            self._turn.flight.ended(self._gateway.clock.monotonic(), attempt.outcome)
            self._turn.flight = None

    def _take_over(self, answer: Answer, attempt: Attempt) -> None:
        """What the caller has now is also from this one."""
        self.answer, self.attempt = answer, attempt
        self.recovered = True
        record = self._turn.record
        record.endpoint_id = answer.candidate.doc.id
        record.provider = answer.candidate.doc.provider
        record.upstream_status = answer.status
        record.model, record.forwarding = answer.plan.model, answer.plan.level
        record.failover = record.failover or record.endpoint_id != record.original_endpoint

    def _count(self, mode: str, result: str) -> None:
        self._gateway.observe(StreamRecovery(mode, result))


def _tokens(text: str) -> int:
    return estimate_bytes(len(text.encode("utf-8", "replace")))
