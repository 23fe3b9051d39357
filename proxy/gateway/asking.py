"""One check of some texts: calls under way, at most `WIDTH` at once, until each text has an opinion
or a fault.

In charge of what guardrails.md §5.12 calls a failure.  `timeout_s` bounds the whole of it, however
many calls it takes.  Law: a text without an opinion is never taken for a clean one.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from proxy.gateway.checks import Check
from proxy.gateway.opinions import Breaker, Opinions
from proxy.gateway.turn import UnderWay
from proxy.guardrails.checks.external.words import Asker, Opinion, Question
from proxy.guardrails.engine import attempt
from proxy.guardrails.matching import Break
from proxy.model.exchange import RawHeaders
from proxy.model.observations import GuardAsked, GuardAskingEnded
from proxy.model.ports import Call, Clock, Observe, TransportFault
from proxy.wire import jsonbody

WIDTH: Final = 8
MAX_TEXTS: Final = 2000  # of one request that are not known yet
BODY_BYTES: Final = 1024 * 1024
PHASE: Final = "external"

Answer = Opinion | Break


class Desk(Protocol):
    """Who asks: a gateway, or a replay."""

    @property
    def clock(self) -> Clock: ...
    @property
    def observe(self) -> Observe: ...
    @property
    def opinions(self) -> Opinions: ...
    @property
    def answers(self) -> set[UnderWay]: ...


Done = Callable[["Asking"], None]


class Asking:
    """`answers`: one per question, in their order; whole when `done` was called."""

    __slots__ = (
        "_asker", "_breaker", "_calls", "_done", "_due", "_gateway", "_keys", "_left", "_over",
        "_started", "_todo", "answers", "check", "elapsed_s", "questions",
    )  # fmt: skip

    def __init__(
        self,
        check: Check,
        questions: Sequence[Question],
        asker: Asker,
        gateway: Desk,
        done: Done,
    ) -> None:
        self.check = check
        self.questions = questions
        self.answers: list[Answer | None] = [None] * len(questions)
        self.elapsed_s = 0.0
        self._asker = asker
        self._gateway = gateway
        self._done = done
        self._breaker: Breaker = gateway.opinions.breaker(check.digest)
        self._keys: list[bytes] = []
        self._left: dict[bytes, list[int]] = {}  # places of each text that nobody knows yet
        self._todo: deque[list[bytes]] = deque()
        self._calls: set[_Call] = set()
        self._over = False
        self._started = gateway.clock.monotonic()
        self._due = self._started + check.rule.timeout_s

    def __repr__(self) -> str:
        return f"<Asking {self.check.rule!r} {len(self._left)} texts left>"

    def start(self) -> None:
        """Begin.  Where everything is known, or nothing can be asked, it is over at once."""
        known, now = self._gateway.opinions, self._started
        route = self._asker.route_id
        for place, question in enumerate(self.questions):
            key = _key(self.check.digest, question, route)
            self._keys.append(key)
            found = known.get(key, now) if self.check.rule.cache_s else None
            if found is not None:
                self.answers[place] = found
                self._tell("cached")
            else:
                self._left.setdefault(key, []).append(place)
        if self.check.unset:
            self._fail_rest("unconfigured")
        elif len(self._left) > MAX_TEXTS:
            self._fail_rest("too_many_texts")
        else:
            keys, size = list(self._left), self.check.rule.adapter.batch
            self._todo.extend(keys[at : at + size] for at in range(0, len(keys), size))
        self._go_on()

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._over = True
        self._todo.clear()
        for call in list(self._calls):
            call.drop()

    # --- one call after the other

    def _go_on(self) -> None:
        while self._todo and len(self._calls) < WIDTH:
            now = self._gateway.clock.monotonic()
            if self._breaker.is_open(now):
                self._fail_rest("breaker_open")
            elif now >= self._due:
                self._fail_rest("timeout")
            else:
                self._call(self._todo.popleft())
        if not self._left and not self._over:
            self._over = True
            self.elapsed_s = self._gateway.clock.monotonic() - self._started
            self._gateway.observe(GuardAskingEnded(self.elapsed_s))
            self._done(self)

    def _call(self, keys: list[bytes]) -> None:
        rule, upstream, envelope = self.check.rule, self.check.upstream, self.check.envelope
        assert upstream is not None, "what cannot be asked is not asked"
        assert envelope is not None, "what cannot be asked is not asked"
        asked = [self.questions[self._left[key][0]] for key in keys]
        made = attempt(
            lambda: envelope(
                jsonbody.dumps(rule.adapter.ask(rule.spec, asked, self._asker)),
                self._gateway.clock.now_ms(),
            )
        )
        if isinstance(made, Break):
            self._settle(keys, Break("unaskable"))
            return
        call = _Call(self, keys, asked)
        self._calls.add(call)
        self._gateway.answers.add(call)
        call.follow(
            upstream.start(made, call, connect_s=rule.timeout_s, due=self._due, phase=PHASE)
        )

    def over(self, call: "_Call", said: list[Opinion] | Break) -> None:
        """A call has ended."""
        self._calls.discard(call)
        self._gateway.answers.discard(call)
        if self._over:
            return
        if isinstance(said, Break):
            self._breaker.failed(self._gateway.clock.monotonic())
        else:
            self._breaker.succeeded()
        self._settle(call.keys, said)
        self._go_on()

    def dropped(self, call: "_Call") -> None:
        """A call was given up."""
        self._calls.discard(call)
        self._gateway.answers.discard(call)

    # --- what was said

    def _settle(self, keys: list[bytes], said: list[Opinion] | Break) -> None:
        now, cache_s = self._gateway.clock.monotonic(), self.check.rule.cache_s
        for at, key in enumerate(keys):
            answer: Answer = said if isinstance(said, Break) else said[at]
            for place in self._left.pop(key):
                self.answers[place] = answer
            if isinstance(answer, Opinion) and cache_s:
                self._gateway.opinions.put(key, answer, now + cache_s)
        if isinstance(said, Break):
            self._tell(said.fault, failed=True)
        else:
            self._tell("violation" if any(opinion.spots for opinion in said) else "pass")

    def _fail_rest(self, fault: str) -> None:
        """Of what is under way every call is still waited for."""
        waiting = {key for call in self._calls for key in call.keys}
        for key in [key for key in self._left if key not in waiting]:
            for place in self._left.pop(key):
                self.answers[place] = Break(fault)
        self._todo.clear()
        self._tell(fault, failed=fault != "breaker_open")

    def _tell(self, result: str, *, failed: bool = False) -> None:
        rule = self.check.rule
        told = GuardAsked(rule.pack.policy_id, rule.rule_id, result, failed)
        self._gateway.observe(told)


def _key(digest: bytes, question: Question, route_id: str) -> bytes:
    """Of a text, of everything that is asked with it, and of the check."""
    facts = (question.direction, question.part, question.role, route_id, question.before)
    told = "\0".join((*facts, question.text)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(digest + told).digest()


class _Call:
    """One request to a service: `model.ports.Sink`, and for the drain `turn.UnderWay`."""

    __slots__ = ("_asked", "_asking", "_body", "_call", "_over", "_size", "_status", "keys")

    def __init__(self, asking: Asking, keys: list[bytes], asked: list[Question]) -> None:
        self.keys = keys
        self._asking = asking
        self._asked = asked
        self._call: Call | None = None
        self._over = False
        self._status = 0
        self._body: list[bytes] = []
        self._size = 0

    @property
    def begun(self) -> bool:
        return False

    def follow(self, call: Call) -> None:
        """The transport's side of it; what was over before that is ended."""
        self._call = call
        if self._over:
            call.cancel()

    def head(self, status: int, headers: RawHeaders) -> None:
        self._status = status
        if not 200 <= status < 300:
            self._end(Break("status"), stop=True)

    def data(self, chunk: bytes) -> None:
        if self._over:
            return
        self._size += len(chunk)
        if self._size > BODY_BYTES:
            self._end(Break("too_large"), stop=True)
        else:
            self._body.append(chunk)

    def end(self) -> None:
        if self._over:
            return
        rule, body = self._asking.check.rule, b"".join(self._body)
        said = attempt(lambda: rule.adapter.read(rule.spec, self._asked, jsonbody.loads(body)))
        if not isinstance(said, Break) and len(said) != len(self.keys):
            said = Break("unreadable")
        self._end(Break("unreadable") if isinstance(said, Break) else said)

    def failed(self, fault: TransportFault) -> None:
        late = fault.phase in (PHASE, "connect_timeout")
        self._end(Break("timeout" if late else "unreachable"))

    def cancel(self) -> None:
        """The upstream is closed; `failed` or `drop` says what becomes of the question."""
        if self._call is not None:
            self._call.cancel()

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if not self._over:
            self._over = True
            self.cancel()
            self._asking.dropped(self)

    def _end(self, said: list[Opinion] | Break, *, stop: bool = False) -> None:
        if self._over:
            return
        self._over = True
        if stop and self._call is not None:
            self._call.cancel()
        self._asking.over(self, said)
