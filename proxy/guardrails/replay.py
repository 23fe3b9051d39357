"""What a change of a pack would do, before it does it (guardrails.md §13).

In charge of judging the same texts by two guards and of telling where they differ; and of whether
the stream guard says of a text in pieces what it says of the whole.  Nothing is kept or told.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.rules import STRENGTH
from proxy.model.exchange import Direction, Leaf, Part
from proxy.model.policy import ActionTaken, PolicyResult, Verdict

STREAMED: Final[frozenset[Part]] = frozenset({"text", "refusal", "reasoning"})
SLICE: Final = 1024  # characters between two looks at the time
_ORDER: Final[tuple[Verdict, ...]] = ("violation", "error", "bypassed", "skipped", "pass")

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


@dataclass(slots=True)
class RuleCount:
    """Of the texts that a rule hits: how many before and after, and how many on one side only."""

    rule_id: str
    baseline_hits: int = 0
    candidate_hits: int = 0
    new: int = 0
    gone: int = 0


def replay(
    candidate: Guard, baseline: Guard, samples: Sequence[Sample], over: Over
) -> list[Compared]:
    """Judge every sample by both guards.  Raises ReplayTooLong."""
    compared = []
    for place, sample in enumerate(samples):
        if over():
            raise ReplayTooLong(place)
        equal = None
        if sample.chunks is not None:
            equal = stream_equals_whole(candidate, sample, over, place)
        old = opinion(baseline, sample)
        if over():
            raise ReplayTooLong(place)
        compared.append(Compared(sample.id, old, opinion(candidate, sample), equal))
    return compared


def opinion(guard: Guard, sample: Sample) -> Opinion:
    """What the guard says of the whole text."""
    judged = guard.judge(sample.leaves, sample.direction)
    hit = frozenset(r.rule_matched for r in judged.results if r.rule_matched is not None)
    return Opinion(strongest(judged.results), action_of(judged), hit, _after(sample, judged))


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
