"""What checks outside said of some texts, put together with the hits of the route's own rules.

In charge of two laws: all rules judge the original text, and rewriting works on the union of all
spans (guardrails.md §2, §4.2).  A check that failed is a verdict, never a pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from proxy.guardrails.checks.external.words import Opinion, Spot
from proxy.guardrails.engine import Guard, Judgement, conclude
from proxy.guardrails.external import ExternalRule
from proxy.guardrails.findings import Findings
from proxy.guardrails.matching import Break
from proxy.guardrails.placeholders import Placeholders
from proxy.guardrails.redact import Edit, Hit, edit_of, in_order, spliced, without_exempted
from proxy.guardrails.sampling import ALL
from proxy.model.exchange import Direction, Leaf
from proxy.model.policy import Action, PolicyResult

BLANK: Final = "[REDACTED]"


@dataclass(slots=True)
class _Wanted:
    """What is to become of one text.  `rewritten`: whole texts, as services want them."""

    leaf: Leaf
    hits: list[Hit]
    edits: list[Edit] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)


class Verdicts:
    """Collects opinions on the texts of one request or answer, then concludes."""

    __slots__ = (
        "_direction", "_draw", "_findings", "_guard", "_placeholders", "_taking", "_wanted",
    )  # fmt: skip

    def __init__(
        self,
        guard: Guard,
        direction: Direction,
        draw: float = ALL,
        placeholders: Placeholders | None = None,
    ) -> None:
        self._guard = guard
        self._draw = draw
        self._placeholders = placeholders
        self._direction: Direction = direction
        self._findings = Findings(direction)
        self._wanted: dict[int, _Wanted] = {}
        self._taking: dict[tuple[int, Action], ExternalRule] = {}

    def __bool__(self) -> bool:
        return bool(self._findings)

    def __repr__(self) -> str:
        return f"<Verdicts {len(self._wanted)} texts found fault with>"

    def said(self, rule: ExternalRule, leaf: Leaf, opinion: Opinion, base: int = 0) -> None:
        """What a service thinks of one text; `base` is where the text begins in its lane."""
        for spot in opinion.spots:
            wanted = self._wanted_of(leaf)
            own = self._as_the_service_has_it(rule.on(spot.category), opinion)
            if _is_exempted(own, spot, wanted.hits):
                continue
            start, end, rewritable = base + spot.start, base + spot.end, leaf.rewritable
            self._findings.found(own, leaf.part, start, end, spot.score, rewritable=rewritable)
            if not (own.enforces and own.rewrites and rewritable):
                continue
            if opinion.rewritten is not None:
                wanted.rewritten.append(opinion.rewritten)
            else:
                wanted.edits.append(Edit(spot.start, spot.end, own.rank, own.words_for(spot)))

    def broke(self, rule: ExternalRule, leaf: Leaf, fault: str) -> None:
        """The check of that text could not be made."""
        self._findings.broken([(rule, Break(fault))], leaf.part)

    def judgement(self, rewrites: Sequence[tuple[Leaf, str]] = ()) -> Judgement:
        """`rewrites`: those of the route's own rules, which are kept or become part of a union."""
        judgement = Judgement()
        ours = {id(leaf): (leaf, text) for leaf, text in rewrites}
        for key, wanted in self._wanted.items():
            if wanted.edits or wanted.rewritten:
                ours[key] = wanted.leaf, self._rewritten(wanted)
        judgement.rewrites = list(ours.values())
        conclude(judgement, self._findings, self._direction)
        return judgement

    def concluded(self) -> Judgement:
        """What was found so far; nothing is rewritten."""
        judgement = Judgement()
        conclude(judgement, self._findings, self._direction)
        return judgement

    def edits(self, leaf: Leaf) -> list[Edit]:
        """What is to be taken out of a text before the route's own rules look at it, in order."""
        wanted = self._wanted.get(id(leaf))
        if wanted is None:
            return []
        if wanted.rewritten:
            return [Edit(0, len(leaf.text), (0, 0, 0, 0), self._rewritten(wanted))]
        return in_order(_widened(wanted.edits, wanted.hits))

    def _wanted_of(self, leaf: Leaf) -> _Wanted:
        wanted = self._wanted.get(id(leaf))
        if wanted is None:
            hits = self._guard.hits(leaf, self._direction, self._draw)
            wanted = self._wanted[id(leaf)] = _Wanted(leaf, hits)
        return wanted

    def _as_the_service_has_it(self, rule: ExternalRule, opinion: Opinion) -> ExternalRule:
        """Where a service itself tells block from redaction, it says which of them it is."""
        if opinion.stops is None or not (rule.rewrites or rule.action == "block"):
            return rule
        if opinion.stops is (rule.action == "block"):
            return rule
        action: Action = "block" if opinion.stops else "redact"
        key = id(rule), action
        if key not in self._taking:
            self._taking[key] = replace(rule, action=action)
        return self._taking[key]

    def _rewritten(self, wanted: _Wanted) -> str:
        """The text with everything taken out that somebody wants out."""
        leaf, whole = wanted.leaf, set(wanted.rewritten)
        if not whole:
            edits = in_order([*wanted.edits, *edits_of(wanted.hits)])
            return spliced(leaf.text, edits, len(leaf.text), self._placeholders)
        if wanted.edits or len(whole) > 1:
            return BLANK  # rewritten twice, each in its own way: nothing of it can stay
        (text,) = whole
        judged = self._guard.judge(
            [replaced(leaf, text)], self._direction, self._draw, self._placeholders
        )
        if judged.block is not None:
            return BLANK
        return judged.rewrites[0][1] if judged.rewrites else text


def unasked(guard: Guard, leaves: Sequence[Leaf], direction: Direction) -> list[PolicyResult]:
    """Of a dry run, which sends nothing anywhere: the rules that would have asked about these."""
    found = []
    for rule in guard.outside:
        covered = [
            leaf
            for leaf in leaves
            if leaf.text and rule.reach.covers(direction, leaf.part, leaf.role, leaf.latest)
        ]
        if covered:
            found.append(
                PolicyResult(
                    rule.pack.policy_id,
                    "skipped",
                    rule.rule_id,
                    0.0,
                    "none",
                    policy_version=rule.pack.version,
                    severity=rule.severity,
                    applies_to=covered[0].part,
                    direction=direction,
                    count=len(covered),
                    enforced=not rule.shadow,
                    detector=rule.detector,
                    message="a dry run asks no service",
                )
            )
    return found


def replaced(leaf: Leaf, text: str) -> Leaf:
    """The same place with another text."""
    return Leaf(text, leaf.part, leaf.role, leaf.path, leaf.inner, leaf.latest, leaf.rewritable)


def edits_of(hits: Sequence[Hit]) -> list[Edit]:
    """What the route's own rules change."""
    return [
        edit_of(hit)
        for hit in without_exempted(list(hits))
        if hit.rule.enforces and hit.rule.rewrites
    ]


def _widened(edits: Sequence[Edit], hits: Sequence[Hit]) -> list[Edit]:
    """The same spans, each with all of the hits that it overlaps; none reaches into a block.

    Who looks at the text afterwards would not see such a hit whole, nor where a block begins."""
    ours = [hit for hit in without_exempted(list(hits)) if hit.rule.enforces]
    stop = min((hit.start for hit in ours if hit.blocks), default=None)
    found = []
    for edit in edits:
        start, end, rank, words = edit.start, edit.end, edit.rank, edit.replacement
        for hit in sorted(ours, key=lambda hit: hit.start):
            if hit.rule.rewrites and hit.start < end and start < hit.end:
                if (hit.start, hit.rule.rank) < (start, rank):
                    rank, words = hit.rule.rank, hit.rule.replacement
                start, end = min(start, hit.start), max(end, hit.end)
        if stop is not None:
            end = min(end, stop)
        if start < end:
            found.append(Edit(start, end, rank, words))
    return found


def _is_exempted(rule: ExternalRule, spot: Spot, hits: Sequence[Hit]) -> bool:
    return any(
        hit.rule.exempts
        and hit.rule.pack is rule.pack
        and hit.start <= spot.start
        and spot.end <= hit.end
        for hit in hits
    )
