"""Checks outside on whole texts: of a request before it leaves or beside it, of a whole answer.

They are asked after the route's own rules have passed a text, so a blocked one is sent nowhere.
Caller gone: the request's task is cancelled, and every call with it.
"""

import asyncio
from collections.abc import Sequence

from proxy.gateway.asking import Asking
from proxy.gateway.checks import Check, sampled
from proxy.gateway.noting import note_judgement
from proxy.gateway.turn import Gateway, Turn
from proxy.guardrails.checks.external.words import Asker, Question
from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.matching import Break
from proxy.guardrails.outside import Verdicts
from proxy.guardrails.placeholders import Placeholders
from proxy.model.errors import Blocked
from proxy.model.exchange import Direction, Leaf
from proxy.model.policy import PolicyResult

Rewrites = list[tuple[Leaf, str]]


class Inquiry:
    """Several checks of the texts of one request or answer, all at once."""

    __slots__ = ("_askings", "_gateway", "_leaves", "_open", "_over", "_turn", "direction")

    def __init__(
        self,
        checks: Sequence[Check],
        leaves: Sequence[Leaf],
        direction: Direction,
        turn: Turn,
        gateway: Gateway,
    ) -> None:
        self._turn = turn
        self._gateway = gateway
        self.direction: Direction = direction
        self._leaves: dict[Asking, list[Leaf]] = {}
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._askings: list[Asking] = []
        asker = Asker(turn.route.doc.id, turn.record.request_id)
        for check in sampled(checks, turn.draw):
            reach = check.rule.reach
            seen = [
                leaf
                for leaf in leaves
                if reach.covers(direction, leaf.part, leaf.role, leaf.latest) and leaf.text.strip()
            ]
            asked = questions(seen, direction, check, turn)
            asking = Asking(check, asked, asker, gateway, self._one_is_over)
            self._leaves[asking] = seen
            self._askings.append(asking)
        self._open = len(self._askings)

    def __repr__(self) -> str:
        return f"<Inquiry {self._open} of {len(self._askings)} open>"

    def start(self) -> None:
        """Begin; `verdicts` waits for the end."""
        for asking in self._askings:
            asking.start()
        if not self._askings:
            self._over.set_result(None)

    async def verdicts(self, guard: Guard, placeholders: Placeholders | None) -> Verdicts:
        """What the services said.  When the wait is cancelled, so are the calls."""
        try:
            await self._over
        finally:
            self.cancel()
        found = Verdicts(guard, self.direction, self._turn.draw, placeholders)
        for asking in self._askings:
            for leaf, answer in zip(self._leaves[asking], asking.answers, strict=True):
                if answer is None or isinstance(answer, Break):
                    found.broke(asking.check.rule, leaf, answer.fault if answer else "cancelled")
                else:
                    found.said(asking.check.rule, leaf, answer)
        return found

    def cancel(self) -> None:
        for asking in self._askings:
            asking.cancel()

    def timed(self, results: Sequence[PolicyResult]) -> None:
        """Say in the results how long each check took."""
        took = {
            (asking.check.rule.pack.policy_id, asking.check.rule.rule_id): asking.elapsed_s
            for asking in self._askings
        }
        for result in results:
            seconds = took.get((result.policy_id, result.rule_matched or ""), 0.0)
            result.elapsed_us = int(seconds * 1_000_000)

    def scanned_chars(self, guard: Guard) -> int:
        """Characters that were looked at, of texts at which no other rule looks."""
        counted: dict[int, int] = {}
        for asking in self._askings:
            for leaf, answer in zip(self._leaves[asking], asking.answers, strict=True):
                if answer is None or isinstance(answer, Break):
                    continue
                if not guard.looks_at(leaf, self.direction):
                    seen = len(leaf.text) if answer.looked_at is None else answer.looked_at
                    counted[id(leaf)] = max(counted.get(id(leaf), 0), seen)
        return sum(counted.values())

    def _one_is_over(self, _: Asking) -> None:
        self._open -= 1
        if self._open == 0 and not self._over.done():
            self._over.set_result(None)


def questions(
    leaves: Sequence[Leaf], direction: Direction, check: Check, turn: Turn
) -> list[Question]:
    """What is asked of these texts."""
    before = ""
    if direction == "response" and check.rule.adapter.name == "llama_guard":
        before = last_said(turn)
    return [Question(leaf.text, direction, leaf.part, leaf.role, before) for leaf in leaves]


def last_said(turn: Turn) -> str:
    """The last text of the user."""
    if turn.dialect is None or turn.exchange.doc is None:
        return ""
    leaves = turn.dialect.request_leaves(turn.exchange.doc)
    said = [leaf.text for leaf in leaves if leaf.role == "user" and leaf.part == "text"]
    return said[-1] if said else ""


async def judged_outside(
    checks: Sequence[Check],
    leaves: Sequence[Leaf],
    direction: Direction,
    rewrites: Rewrites,
    placeholders: Placeholders | None,
    turn: Turn,
    gateway: Gateway,
) -> Judgement:
    """Ask, wait, conclude; everything that was found stands in the record.

    `rewrites`: what the route's own rules want, with `placeholders` where these can be undone."""
    inquiry = Inquiry(checks, leaves, direction, turn, gateway)
    inquiry.start()
    return await concluded(inquiry, rewrites, placeholders, turn, gateway)


async def concluded(
    inquiry: Inquiry,
    rewrites: Rewrites,
    placeholders: Placeholders | None,
    turn: Turn,
    gateway: Gateway,
) -> Judgement:
    """Wait for an inquiry that has begun, and note what it found."""
    guard = turn.route.guard
    assert guard is not None, "checks are rules of a guard"
    verdicts = await inquiry.verdicts(guard, placeholders)
    judged = verdicts.judgement(rewrites)
    inquiry.timed(judged.results)
    judged.scanned_chars = inquiry.scanned_chars(guard)
    note_judgement(turn.record, judged, gateway)
    return judged


async def ask_outside(
    turn: Turn,
    leaves: list[Leaf],
    rewrites: Rewrites,
    placeholders: Placeholders | None,
    gateway: Gateway,
) -> Rewrites:
    """Stages preflight and parallel.  Returns what is to be rewritten.  Raises Blocked."""
    checks = turn.route.checks
    assert checks is not None, "who has none asks nobody"
    if checks.preflight:
        judged = await judged_outside(
            checks.preflight, leaves, "request", rewrites, placeholders, turn, gateway
        )
        if judged.block is not None:
            turn.record.outcome = "blocked"
            raise Blocked(judged.message, judged.block.policy_id)
        rewrites = judged.rewrites
    if checks.parallel:
        turn.beside = _Beside(checks.parallel, leaves, turn, gateway)
    if checks.aside:
        turn.aside = _Beside(checks.aside, leaves, turn, gateway)
    return rewrites


async def look_back(turn: Turn, leaves: list[Leaf] | None, gateway: Gateway) -> None:
    """Checks that only watch: the answer leaves whole, then they are waited for, and so is the
    record.  `leaves` None: there were more than anybody keeps.  Who leaves now has his answer."""
    checks = turn.route.checks
    assert checks is not None, "who has none asks nobody"
    turn.caller.release()
    try:
        if turn.aside is not None:
            await turn.aside.verdict()
        if checks.post and leaves is not None:
            await judged_outside(checks.post, leaves, "response", [], None, turn, gateway)
    except asyncio.CancelledError:
        _unseen(checks.post, "cancelled", turn, gateway)
    else:
        if leaves is None:
            _unseen(checks.post, "too_large", turn, gateway)


def _unseen(checks: Sequence[Check], fault: str, turn: Turn, gateway: Gateway) -> None:
    """These could not be asked."""
    guard = turn.route.guard
    assert guard is not None, "checks are rules of a guard"
    verdicts = Verdicts(guard, "response")
    for check in sampled(checks, turn.draw):
        verdicts.broke(check.rule, Leaf("", "text", "assistant", ()), fault)
    note_judgement(turn.record, verdicts.concluded(), gateway)


class _Beside:
    """Checks of a request that go on while it is answered."""

    __slots__ = ("_gateway", "_inquiry", "_turn")

    def __init__(
        self, checks: Sequence[Check], leaves: list[Leaf], turn: Turn, gateway: Gateway
    ) -> None:
        self._turn = turn
        self._gateway = gateway
        self._inquiry = Inquiry(checks, leaves, "request", turn, gateway)
        self._inquiry.start()

    async def verdict(self) -> None:
        """Raises Blocked."""
        judged = await concluded(self._inquiry, [], None, self._turn, self._gateway)
        if judged.block is not None:
            raise Blocked(judged.message, judged.block.policy_id)

    def cancel(self) -> None:
        self._inquiry.cancel()
