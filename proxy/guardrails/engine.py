"""The guard of a route: why was this blocked?

In charge of judging whole texts and of handing out lanes for streams, by the rules of the packs on
the route.  A guard is built once per snapshot and shared by all requests.  Invariant: a check that
breaks is a verdict (`error`, or `bypassed` where its pack allows it), never a pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar, get_args

from proxy.guardrails import samples
from proxy.guardrails.automaton import Automaton
from proxy.guardrails.decoded import Decoder
from proxy.guardrails.external import ExternalRule
from proxy.guardrails.findings import Findings, sentence
from proxy.guardrails.gates import Gates
from proxy.guardrails.look import Look, look_at
from proxy.guardrails.matching import Break, Breaks, RuleSet
from proxy.guardrails.memo import Memo
from proxy.guardrails.placeholders import Placeholders, Restoration
from proxy.guardrails.program import Limits, Program, lane_rules
from proxy.guardrails.redact import Hit, apart, rewrite, without_exempted
from proxy.guardrails.restoring import RestoringLane
from proxy.guardrails.rules import LiveRule, RuleFacts
from proxy.guardrails.sampling import ALL, draw_of
from proxy.guardrails.scoring import Score
from proxy.guardrails.spans import SpanLane
from proxy.guardrails.stream import Lane
from proxy.guardrails.view import View, encoded
from proxy.guardrails.watch import WatchedLane
from proxy.guardrails.whole import SchemaRule, judge_texts
from proxy.model.exchange import Direction, Leaf, Part, Role
from proxy.model.policy import PolicyPack, PolicyResult, Unscannable

T = TypeVar("T")

PARTS: Final[tuple[Part, ...]] = get_args(Part)
ROLES: Final[tuple[Role, ...]] = get_args(Role)


def attempt(search: Callable[[], T]) -> T | Break:
    """Run a check.  The one place where anything may be caught: it becomes a verdict."""
    try:
        return search()
    except Exception as fault:
        return Break(type(fault).__name__)


@dataclass(slots=True)
class Judgement:
    """`message`: the sentence for the caller when `block` is set.  `rewrites`: new texts of leaves,
    empty on a block.  `flagged`: an enforcing `flag` rule hit.  `reroute`: the endpoints that
    the request goes to, in order, and to no other; empty: the route's own."""

    block: PolicyResult | None = None
    message: str = ""
    results: list[PolicyResult] = field(default_factory=list)
    rewrites: list[tuple[Leaf, str]] = field(default_factory=list)
    scanned_chars: int = 0
    total_chars: int = 0
    flagged: bool = False
    reroute: tuple[str, ...] = ()


class Guard:
    """All rules of a route, strongest pack settings first where packs differ."""

    def __init__(
        self,
        packs: Sequence[PolicyPack],
        rules: Sequence[RuleFacts],
        limits: Limits,
        header: Literal["off", "verdict", "rules"] = "off",
        memo: Memo | None = None,
    ) -> None:
        self._memo = Memo() if memo is None else memo
        self.header = header  # what the policy header says (guardrails.md §10)
        self._packs = {pack.policy_pack_id: pack for pack in reversed(packs)}
        self.profile = ",".join(f"{pack.policy_pack_id}@{pack.version}" for pack in packs)
        self.tool_args: Literal["hold", "live"] = _strictest(
            [pack.tool_args for pack in packs], ("hold", "live")
        )
        self.reasoning: Literal["hold", "live", "off"] = _strictest(
            [pack.reasoning for pack in packs], ("hold", "live", "off")
        )
        self.unscannable = Unscannable(
            binary=_strictest([p.unscannable.binary for p in packs], ("block", "allow")),
            remote=_strictest([p.unscannable.remote for p in packs], ("block", "allow")),
        )
        self._rules = [rule for rule in rules if isinstance(rule, LiveRule)]
        self.reversible = any(r.placeholder_label and r.enforces for r in self._rules)
        self.gates = Gates.of(rules)
        self.schemas = [rule for rule in rules if isinstance(rule, SchemaRule)]
        self.outside = tuple(rule for rule in rules if isinstance(rule, ExternalRule))
        self._limits = limits
        self.reroutes = frozenset(name for rule in rules for name in rule.reroute_to)
        self.samples = any(rule.sample_pct < 100 for rule in rules)
        sets: dict[tuple[int, ...], RuleSet] = {}
        self._request: dict[tuple[Part, Role, bool], RuleSet] = {}
        self._response: dict[tuple[Part, Role, bool], RuleSet] = {}
        for part in PARTS:
            for role in ROLES:
                for latest in (True, False):
                    for direction, plans in self._plans():
                        found = self._in_scope(direction, part, role, latest)
                        if found:
                            key = tuple(map(id, found))
                            if key not in sets:
                                sets[key] = RuleSet(found, attempt)
                            plans[part, role, latest] = sets[key]
        decoders = {rules: Decoder(rules.rules, attempt) for rules in self._request.values()}
        self._decoders = {rules: decoder for rules, decoder in decoders.items() if decoder}
        self._lanes = self._lane_programs()
        self._idle = Program(RuleSet([], attempt), limits)

    def _plans(
        self,
    ) -> tuple[tuple[Direction, dict[tuple[Part, Role, bool], RuleSet]], ...]:
        return ("request", self._request), ("response", self._response)

    def _in_scope(
        self, direction: Direction, part: Part, role: Role, latest: bool
    ) -> list[LiveRule]:
        return [r for r in self._rules if r.reach.covers(direction, part, role, latest)]

    def _lane_programs(self) -> dict[Part, tuple[Program | None, RuleSet | None]]:
        """For each part: the program of enforcing lanes, and the rules that watch beside them."""
        programs: dict[tuple[int, ...], Program] = {}
        lanes: dict[Part, tuple[Program | None, RuleSet | None]] = {}
        for part in PARTS:
            enforcing, watching = lane_rules(self._in_scope("response", part, "assistant", True))
            key = tuple(map(id, enforcing))
            if enforcing and key not in programs:
                programs[key] = Program(RuleSet(enforcing, attempt), self._limits)
            if enforcing or watching:
                watch = RuleSet(watching, attempt) if watching else None
                lanes[part] = programs.get(key), watch
        return lanes

    # ---- what a pack says of its blocks

    def saying(self, policy_id: str) -> str | None:
        """The pack's own sentence on a block."""
        pack = self._packs.get(policy_id)
        return pack.message if pack is not None else None

    def finishes(self, policy_id: str) -> bool:
        """A block by the pack is told as an answer that ends at once, not as an error."""
        pack = self._packs.get(policy_id)
        return pack is not None and pack.block_style == "finish"

    # ---- what it looks at

    def covers(self, direction: Direction) -> bool:
        """Any rule, enforcing or shadow, looks there."""
        if self.gates.covers(direction) or (direction == "response" and self.schemas):
            return True
        looking = (*self._rules, *self.outside)
        return any(direction in rule.reach.directions for rule in looking)

    def enforces(self, direction: Direction, part: Part) -> bool:
        """A rule that blocks or rewrites covers that part for some role."""
        if part == "tool_args" and direction == "response" and self.gates.holds_calls:
            return True
        return any(
            rule.enforces and any(rule.reach.covers(direction, part, role, True) for role in ROLES)
            for rule in (*self._rules, *self.outside)
        )

    def draw(self, request_id: str) -> float:
        """The request's number for `judge` and `lane`."""
        return draw_of(request_id) if self.samples else ALL

    @property
    def holds_answers(self) -> bool:
        """A rule may block an answer for what it is as a whole: nothing of it leaves before."""
        return any(rule.enforces for rule in self.schemas)

    def looks_at(self, leaf: Leaf, direction: Direction) -> bool:
        """A rule that needs nobody outside looks at that text."""
        plans = self._request if direction == "request" else self._response
        return (leaf.part, leaf.role, leaf.latest) in plans

    # ---- whole texts

    def judge(
        self,
        leaves: Sequence[Leaf],
        direction: Direction,
        draw: float = ALL,
        placeholders: Placeholders | None = None,
    ) -> Judgement:
        """Decide on all texts of a request or of a unary answer.  Never raises.

        `draw`: the request's number, by which sampled rules look at it or do not.
        `placeholders`: of a request; they are issued here where a rule is reversible."""
        plans = self._request if direction == "request" else self._response
        judgement, findings = Judgement(), Findings(direction)
        score = Score(lane=False) if direction == "request" else None
        scanned = total = 0
        for leaf in leaves:
            total += len(leaf.text)
            rules = plans.get((leaf.part, leaf.role, leaf.latest))
            if rules is None:
                continue
            scanned += len(leaf.text)
            decoder = self._decoders.get(rules) if score is not None else None
            found = self._found(rules, leaf, draw, decoder, findings) if leaf.text else ()
            if not found:
                continue
            hits = without_exempted(found)
            if rules.counted:
                (score or Score(lane=True)).count(hits)
            rewritten = _rewritten(leaf, hits, findings, placeholders)
            if rewritten is not None:
                judgement.rewrites.append((leaf, rewritten))
        judgement.scanned_chars, judgement.total_chars = scanned, total
        if findings:
            if score is not None:
                findings.settle(score)
            conclude(judgement, findings, direction)
        return judgement

    def _found(
        self, rules: RuleSet, leaf: Leaf, draw: float, decoder: Decoder | None, findings: Findings
    ) -> Sequence[Hit]:
        """What one text holds, known from before or looked for; checks that break go to
        `findings`."""
        try:
            data, exact = leaf.text.encode(), True
        except UnicodeEncodeError:  # half a surrogate pair
            data, exact = encoded(leaf.text), False
        alike = exact and decoder is None and rules.alike
        key = self._memo.key(rules, leaf, data) if alike else None
        known = self._memo.find(key, rules) if key is not None else None
        if known is not None:
            return known
        look = Look(rules, leaf, draw, decoder, data)
        try:
            nothing = look.sees_nothing()
        except Exception:  # the text is judged, and there the fault is a verdict
            nothing = False
        found: Sequence[Hit] = ()
        whole = True
        if not nothing:
            found, whole = look.found(findings)
        if key is not None and whole:
            self._memo.keep(key, rules, found)
        return found

    def hits(self, leaf: Leaf, direction: Direction, draw: float = ALL) -> list[Hit]:
        """What the rules find in a text, exempting hits too.  A check that breaks finds nothing
        here: `judge` has told so."""
        plans = self._request if direction == "request" else self._response
        rules = plans.get((leaf.part, leaf.role, leaf.latest))
        if rules is None:
            return []
        decoder = self._decoders.get(rules) if direction == "request" else None
        found = apart(
            [hit for hit in look_at(rules, leaf, draw, decoder).found(None)[0] if hit.valid]
        )
        if rules.counted:
            Score(lane=True).count(without_exempted(found))
        return found

    def judge_whole(self, texts: Sequence[str], draw: float = ALL) -> Judgement:
        """Decide on what an answer says as a whole, each choice for itself.  Never raises."""
        judgement = Judgement()
        findings = judge_texts(self.schemas, texts, draw, attempt)
        if findings:
            conclude(judgement, findings, "response")
        return judgement

    def unjudged(self, fault: str) -> Judgement:
        """An answer that cannot be judged as a whole: `on_error` of each rule decides."""
        judgement, findings = Judgement(), Findings("response")
        findings.broken([(rule, Break(fault)) for rule in self.schemas], "text")
        conclude(judgement, findings, "response")
        return judgement

    # ---- streams

    def lane(self, part: Part, draw: float = ALL) -> Lane | None:
        """A lane for one growing string of an answer; None when no rule covers that part."""
        programs = self._lanes.get(part)
        if programs is None:
            return None
        program, watch = programs
        if watch is None:
            assert program is not None
            return Lane(program, part)
        return WatchedLane(program or self._idle, watch, part, draw, enforcing=program is not None)

    def whole(self, text: str, part: Part) -> tuple[str, PolicyResult | None]:
        """What a lane of that part must emit of a text, found by searching it whole: the text as it
        may leave, up to where a block falls, and that block (guardrails.md §9.1)."""
        program = self._lanes.get(part, (None, None))[0]
        if program is None:
            return text, None
        breaks: Breaks = []
        findings = Findings("response")
        hits = without_exempted(program.rules.scan(View(text), breaks))
        broken = findings.broken(breaks, part)
        if broken is not None:
            return "", findings.result(broken)
        left, block = rewrite(text, [hit for hit in hits if hit.rule.enforces])
        return left, findings.result(findings.hit(block, part)) if block else None

    def restoring_lane(
        self, part: Part, restoration: Restoration, draw: float = ALL
    ) -> Lane | None:
        """The same for an answer in which placeholders are undone."""
        judging = self.lane(part, draw)
        if part not in ("text", "refusal"):
            return judging
        return RestoringLane(self._idle, part, judging, restoration.lane())

    def automata(self) -> list[Automaton]:
        """Those of all lanes, each once: their health is counted."""
        programs = {id(one): one for one, _ in self._lanes.values() if one is not None}
        return [program.automaton for program in programs.values()]

    def span_lane(self, part: Part) -> SpanLane:
        """A lane that is told from outside what must go, and what lane to stand around."""
        return SpanLane(self._idle, part)

    def warm(self) -> None:
        """Meet every kind of text once, so that the first stream does not build the states."""
        parts = {tuple(map(id, programs)): part for part, programs in self._lanes.items()}
        for text in samples.WARM:
            for part in parts.values():
                lane = self.lane(part)
                assert lane is not None
                for at in range(0, len(text), 5):
                    lane.feed(text[at : at + 5])
            self.judge([Leaf(text, "text", "user", ())], "request")
            self.judge([Leaf(text, "text", "assistant", ())], "response")

    def __repr__(self) -> str:
        return f"<Guard {self.profile or 'empty'} {len(self._rules)} rules>"


def conclude(judgement: Judgement, findings: Findings, direction: Direction) -> None:
    """Fill in what was found; on a block nothing is rewritten."""
    judgement.results = findings.results()
    judgement.flagged = findings.flagged
    blocking = findings.strongest_block()
    if blocking is not None:
        judgement.block = findings.result(blocking)
        judgement.message = sentence(blocking, direction)
        judgement.rewrites.clear()
    else:
        judgement.reroute = findings.reroute()


def _rewritten(
    leaf: Leaf, hits: Sequence[Hit], findings: Findings, placeholders: Placeholders | None
) -> str | None:
    """Record what was found; the new text when it was rewritten."""
    for hit in hits:
        findings.hit(hit, leaf.part, rewritable=leaf.rewritable)
    changing = [hit for hit in hits if hit.rule.enforces and hit.rule.rewrites]
    if not changing or not leaf.rewritable:
        return None
    return rewrite(leaf.text, changing, placeholders)[0]


def _strictest(values: Sequence[T], order: tuple[T, ...]) -> T:
    """The first of `order` that some pack asks for; the last when there is no pack."""
    return next((value for value in order if value in values), order[-1])
