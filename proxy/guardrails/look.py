"""One text of a request or an answer, and all that looks at it, each step taken once at most."""

from proxy.guardrails.decoded import Decoder
from proxy.guardrails.findings import Findings
from proxy.guardrails.matching import Break, Breaks, RuleSet
from proxy.guardrails.redact import Hit
from proxy.guardrails.view import View, encoded
from proxy.model.exchange import Leaf


class Look:
    """`data`: the text, encoded.  `draw`: the request's number, for sampled rules."""

    __slots__ = ("_decoder", "_draw", "_leaf", "_mask", "_rules", "_view")

    def __init__(
        self, rules: RuleSet, leaf: Leaf, draw: float, decoder: Decoder | None, data: bytes
    ) -> None:
        self._rules, self._leaf, self._draw, self._decoder = rules, leaf, draw, decoder
        self._view = View(leaf.text, "" if leaf.inner is None else _names(leaf), data)
        self._mask = -1  # not known yet

    def sees_nothing(self) -> bool:
        """No rule can hit: what most texts are told, in one pass.  May raise; then `found` says who
        is to be told."""
        self._mask = self._rules.candidates(self._view)
        if self._mask:
            return False
        return self._decoder is None or self._decoder.untouched(self._view.raw.data)

    def found(self, findings: Findings | None) -> tuple[list[Hit], bool]:
        """What the text holds, and whether every check has said so; the others go to `findings`."""
        breaks: Breaks = []
        rules, view, draw, decoder = self._rules, self._view, self._draw, self._decoder

        def scan() -> list[Hit]:
            if self._mask < 0:
                self._mask = rules.candidates(view)
            hits = rules.among(self._mask, view, breaks, draw)
            if decoder is None:
                return hits
            return hits + [hit for hit in decoder.scan(view, breaks) if draw < hit.rule.sample_pct]

        found = rules.attempt(scan)
        if isinstance(found, Break):  # not one check but all of them
            breaks, found = [(rule, found) for rule in rules.rules], []
        if breaks and findings is not None:
            findings.broken(breaks, self._leaf.part)
        return found, not breaks


def look_at(rules: RuleSet, leaf: Leaf, draw: float, decoder: Decoder | None) -> Look:
    return Look(rules, leaf, draw, decoder, encoded(leaf.text))


def _names(leaf: Leaf) -> str:
    """The members that lead to an argument of a tool say what it is."""
    if leaf.part != "tool_args" or not leaf.inner:
        return ""
    return " ".join([name for name in leaf.inner if isinstance(name, str)]).lower()
