"""From hits to a new text: the union of spans, their replacements, and where a block cuts.

In charge of guardrails.md §4.2 rule 2.  Law: what is returned is a function of the set of hits, not
of the order in which they were found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.guardrails.placeholders import Placeholders
from proxy.guardrails.rules import LiveRule


@dataclass(slots=True)
class Hit:
    """What a rule found.  `first`..`last`: the whole match; `start`..`end`: the span that counts.

    Offsets are characters of the text that was searched.  Not `valid`: refused by the rule's check
    or for want of context, kept only because the search went on behind it.  `acts`: enough was
    found for the rule's action (`scoring`).  `family`: another than the rule's own.
    """

    rule: LiveRule
    first: int
    last: int
    start: int
    end: int
    valid: bool
    confidence: float
    acts: bool = True
    family: str = ""

    @property
    def blocks(self) -> bool:
        return self.acts and self.rule.action == "block"


def without_exempted(hits: Sequence[Hit]) -> list[Hit]:
    """Drop what lies inside a hit of an `allow` rule of the same pack, and that hit itself."""
    exempting = [hit for hit in hits if hit.rule.exempts and hit.valid]
    if not exempting:
        return [hit for hit in hits if not hit.rule.exempts]
    return [
        hit
        for hit in hits
        if not hit.rule.exempts
        and not any(
            other.rule.pack is hit.rule.pack and other.start <= hit.start and hit.end <= other.end
            for other in exempting
        )
    ]


@dataclass(slots=True)
class Edit:
    """A span and what takes its place.  `rank`: of the rule that wants it.  `label`: of the
    placeholder that may stand there in place of the `replacement`, empty when there is none."""

    start: int
    end: int
    rank: tuple[int, int, int, int]
    replacement: str
    label: str = ""

    def shown(self, text: str, placeholders: Placeholders | None) -> str:
        if placeholders is None or not self.label:
            return self.replacement
        return placeholders.issue(self.label, text[self.start : self.end]) or self.replacement


def rewrite(
    text: str, hits: Sequence[Hit], placeholders: Placeholders | None = None
) -> tuple[str, Hit | None]:
    """The rewritten text and the first blocking hit; with one, the text ends where it begins.

    Overlapping spans become one region, named by the one that starts first, then by the strongest.
    With `placeholders` it gets one that can be undone, if all rules that hit it allow that.
    """
    ordered = sorted(hits, key=lambda hit: (hit.start, hit.rule.rank))
    block = next((hit for hit in ordered if hit.blocks), None)
    edits = [edit_of(hit) for hit in ordered if hit.rule.rewrites]
    return spliced(text, edits, block.start if block else len(text), placeholders), block


def edit_of(hit: Hit) -> Edit:
    """What a hit of a rule that rewrites wants."""
    rule = hit.rule
    return Edit(hit.start, hit.end, rule.rank, rule.replacement, rule.placeholder_label)


def in_order(edits: Sequence[Edit]) -> list[Edit]:
    """As `spliced` takes them: of those that start together the strongest first."""
    return sorted(edits, key=lambda edit: (edit.start, edit.rank))


def spliced(
    text: str, edits: Sequence[Edit], stop: int, placeholders: Placeholders | None = None
) -> str:
    """The text up to `stop` with these spans replaced, their union; edits come in order."""
    regions: list[Edit] = []
    at = 0
    for edit in edits:
        if edit.start >= stop:
            break
        if edit.start >= at:
            own = (edit.start, edit.end, edit.rank, edit.replacement, edit.label)
            regions.append(Edit(*own))
        elif not edit.label:
            regions[-1].label = ""
        at = max(at, edit.end)
        regions[-1].end = at
    out: list[str] = []
    at = 0
    for region in regions:
        out += (text[at : region.start], region.shown(text, placeholders))
        at = region.end
    if at < stop:
        out.append(text[at:stop])
    return "".join(out)
