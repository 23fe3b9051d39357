"""What a change of a pack would do, before it does it (guardrails.md §13).

In charge of judging the same texts by two guards and of telling where they differ; and of whether
the stream guard says of a text in pieces what it says of the whole.  Nothing is kept or told.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from proxy.guardrails.checks.external.words import Opinion as Answer
from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.external import ExternalRule
from proxy.guardrails.matching import Break
from proxy.guardrails.outside import Verdicts
from proxy.guardrails.rules import STRENGTH, RuleFacts
from proxy.model.exchange import Direction, Leaf, Part
from proxy.model.policy import ActionTaken, PolicyResult, Verdict

STREAMED: Final[frozenset[Part]] = frozenset({"text", "refusal", "reasoning"})
SLICE: Final = 1024  # characters between two looks at the time
_ORDER: Final[tuple[Verdict, ...]] = ("violation", "error", "bypassed", "skipped", "pass")

# what services said of the texts of a sample, by its place
Heard = Mapping[int, Sequence[tuple[ExternalRule, Leaf, Answer | Break]]]
Over = Callable[[], bool]  # the time that a replay may take is over


class ReplayTooLong(Exception):
    """The time was over at the sample with this place."""

    def __init__(self, place: int) -> None:
        super().__init__(f"the time is over at sample {place}")
        self.place = place


@dataclass(frozen=True, slots=True)
class Sample:
    """One text.  `leaves`: as a guard looks at it, several when it holds JSON.  `chunks`: sizes of
    the pieces in which it comes, what is left comes as one more; None: it comes whole."""

    id: str
    text: str
    direction: Direction
    part: Part
    leaves: Sequence[Leaf]
    chunks: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one guard says of a text.  `after`: the leaves as they go on; None: they do not."""

    verdict: Verdict
    action_taken: ActionTaken
    rules: frozenset[str]
    after: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Compared:
    """`stream_equals_whole`: of the candidate; None when the text came whole."""

    id: str
    baseline: Opinion
    candidate: Opinion
    stream_equals_whole: bool | None

    @property
    def changed(self) -> bool:
        """Another verdict, another action, or another text goes on."""
        old, new = self.baseline, self.candidate
        return (old.verdict, old.action_taken, old.after) != (
            new.verdict,
            new.action_taken,
            new.after,
        )


@dataclass(frozen=True, slots=True)
class NotReplayed:
    """A rule that no replay can speak for.  `reason`: it asks a service outside, or what it judges
    is no text.  `texts`: how many of them it would have looked at."""

    rule_id: str
    reason: Literal["external", "not_a_text"]
    in_baseline: bool
    in_candidate: bool
    texts: int


@dataclass(slots=True)
class RuleCount:
    """Of the texts that a rule hits: how many before and after, and how many on one side only."""

    rule_id: str
    baseline_hits: int = 0
    candidate_hits: int = 0
    new: int = 0
    gone: int = 0


def replay(
    candidate: Guard,
    baseline: Guard,
    samples: Sequence[Sample],
    over: Over,
    heard: tuple[Heard, Heard] = ({}, {}),
) -> list[Compared]:
    """Judge every sample by both guards.  `heard`: what services said for the candidate and for
    the baseline, where they were asked.  Raises ReplayTooLong."""
    compared = []
    for place, sample in enumerate(samples):
        if over():
            raise ReplayTooLong(place)
        equal = None
        if sample.chunks is not None:
            equal = stream_equals_whole(candidate, sample, over, place)
        old = opinion(baseline, sample, heard[1].get(place, ()))
        if over():
            raise ReplayTooLong(place)
        new = opinion(candidate, sample, heard[0].get(place, ()))
        compared.append(Compared(sample.id, old, new, equal))
    return compared


def opinion(
    guard: Guard, sample: Sample, heard: Sequence[tuple[ExternalRule, Leaf, Answer | Break]] = ()
) -> Opinion:
    """What the guard says of the whole text, with what services said of it."""
    judged = judged_alone(guard, sample.leaves, sample.text, sample.direction, sample.part)
    if heard and judged.block is None:
        verdicts = Verdicts(guard, sample.direction)
        for rule, leaf, answer in heard:
            if isinstance(answer, Break):
                verdicts.broke(rule, leaf, answer.fault)
            else:
                verdicts.said(rule, leaf, answer)
        outside = verdicts.judgement(judged.rewrites)
        judged.results += outside.results
        judged.block, judged.rewrites = outside.block, outside.rewrites
    hit = frozenset(r.rule_matched for r in judged.results if r.rule_matched is not None)
    return Opinion(strongest(judged.results), action_of(judged), hit, _after(sample, judged))


def judged_alone(
    guard: Guard, leaves: Sequence[Leaf], text: str, direction: Direction, part: Part
) -> Judgement:
    """A text judged as if it were all of the request, or all that the answer says."""
    judged = guard.judge(leaves, direction)
    if guard.schemas and (direction, part) == ("response", "text"):
        whole = guard.judge_whole([text])
        judged.results += whole.results
        judged.flagged = judged.flagged or whole.flagged
        if judged.block is None and whole.block is not None:
            judged.block, judged.message = whole.block, whole.message
            judged.rewrites.clear()
    return judged


def not_replayed(
    candidate: Guard, baseline: Guard, samples: Sequence[Sample], *, asked: bool = False
) -> list[NotReplayed]:
    """The rules of either side that no replay can speak for, by name; `asked`: services were."""
    sides = [
        {rule.rule_id: rule for rule in _beyond(guard) if not (asked and _asks(rule))}
        for guard in (baseline, candidate)
    ]
    found = []
    for rule_id in sorted(sides[0].keys() | sides[1].keys()):
        rules = [side[rule_id] for side in sides if rule_id in side]
        asks = any(map(_asks, rules))
        texts = sum(
            any(
                leaf.text and rule.reach.covers(sample.direction, leaf.part, leaf.role, leaf.latest)
                for leaf in sample.leaves
                for rule in rules
                if _asks(rule)
            )
            for sample in samples
        )
        found.append(
            NotReplayed(
                rule_id,
                "external" if asks else "not_a_text",
                rule_id in sides[0],
                rule_id in sides[1],
                texts,
            )
        )
    return found


def _asks(rule: RuleFacts) -> bool:
    return isinstance(rule, ExternalRule)


def _beyond(guard: Guard) -> Iterator[RuleFacts]:
    yield from guard.outside
    yield from (*guard.gates.tools, *guard.gates.access, *guard.gates.limits)


def strongest(results: Sequence[PolicyResult]) -> Verdict:
    """The verdict on the whole text."""
    seen = {result.verdict for result in results}
    return next((verdict for verdict in _ORDER if verdict in seen), "pass")


def action_of(judged: Judgement) -> ActionTaken:
    """The strongest action that was taken; `none` when there was none."""
    if judged.block is not None:
        return "block"
    taken = {result.action_taken for result in judged.results}
    return next((action for action in STRENGTH if action in taken), "none")


def _after(sample: Sample, judged: Judgement) -> tuple[str, ...] | None:
    if judged.block is not None:
        return None
    rewritten = {id(leaf): text for leaf, text in judged.rewrites}
    return tuple(rewritten.get(id(leaf), leaf.text) for leaf in sample.leaves)


def stream_equals_whole(guard: Guard, sample: Sample, over: Over, place: int = 0) -> bool:
    """Whether what leaves of the pieces, joined, is what may leave of the whole text, and a block
    falls on the same rule.  Not where a candidate overflows.  Raises ReplayTooLong."""
    left, block = guard.whole(sample.text, sample.part)
    lane = guard.lane(sample.part)
    if lane is None:
        return left == sample.text
    out = []
    for piece in pieces(sample.text, sample.chunks or ()):
        if over():
            raise ReplayTooLong(place)
        out.append(lane.feed(piece))
    if lane.blocked is None:
        out.append(lane.finish())
    return "".join(out) == left and _rule(lane.blocked) == _rule(block)


def pieces(text: str, sizes: Sequence[int]) -> Iterator[str]:
    """The text cut at these sizes, none longer than SLICE; what is left comes last."""
    at = 0
    for size in (*sizes, len(text)):
        end = min(at + size, len(text))
        while at < end:
            upto = min(at + SLICE, end)
            yield text[at:upto]
            at = upto


def _rule(result: PolicyResult | None) -> tuple[str, str | None] | None:
    return None if result is None else (result.policy_id, result.rule_matched)


def by_rule(compared: Sequence[Compared]) -> list[RuleCount]:
    """Every rule that hits anything, most new and gone hits first, then by name."""
    counts: dict[str, RuleCount] = {}
    for each in compared:
        old, new = each.baseline.rules, each.candidate.rules
        for rule_id in old | new:
            count = counts.setdefault(rule_id, RuleCount(rule_id))
            count.baseline_hits += rule_id in old
            count.candidate_hits += rule_id in new
            count.new += rule_id in new - old
            count.gone += rule_id in old - new
    return sorted(counts.values(), key=lambda count: (-count.new - count.gone, count.rule_id))
