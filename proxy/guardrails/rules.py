"""A rule ready to run: what a pack says about one thing to look for, compiled.

In charge of the facts that matching, rewriting and the stream need of a rule, and of nothing that
happens.  Rules are frozen and shared by all requests of a route.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.guardrails import shape
from proxy.guardrails.context import ContextWords
from proxy.guardrails.fold import Folding
from proxy.guardrails.heads import heads
from proxy.guardrails.linear import INNER_MEM_BYTES, Regex
from proxy.guardrails.narrow import is_number, narrow
from proxy.guardrails.parse import Node
from proxy.guardrails.signs import Signs, signs
from proxy.model.documents import SEVERITY_RANK, Severity
from proxy.model.exchange import Direction, Part, Role
from proxy.model.policy import Action, Encoding, OnError

# A check looks at the text of a hit and says which part of it counts; None refuses the hit.
Check = Callable[[str], "tuple[int, int] | None"]

STRENGTH: Final[dict[Action, int]] = {
    "block": 0,
    "reroute": 1,
    "redact": 2,
    "replace": 2,
    "flag": 3,
    "log": 4,
    "allow": 5,
}


@dataclass(frozen=True, slots=True)
class PackFacts:
    policy_id: str
    version: str
    message: str | None
    order: int  # place on the route


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a rule looks.  `parts` None: the default parts of that direction."""

    directions: frozenset[Direction]
    roles: frozenset[Role] | None
    parts: frozenset[Part] | None
    latest_only: bool
    reasoning: bool  # the pack scans reasoning of answers

    def covers(self, direction: Direction, part: Part, role: Role, latest: bool) -> bool:
        if direction not in self.directions or (self.latest_only and not latest):
            return False
        if self.roles is not None and role not in self.roles:
            return False
        if part == "reasoning" and direction == "response" and not self.reasoning:
            return False
        if self.parts is not None:
            return part in self.parts
        return part != "tool_def" and (part != "reasoning" or direction == "response")


class Pattern:
    """A regex twice: as RE2 runs it, and as a tree; with what follows from the tree."""

    __slots__ = (
        "_open_tail", "folding", "gates", "heads", "keywords", "late_assertion", "max_width",
        "node", "regex", "signs",
    )  # fmt: skip

    def __init__(
        self,
        regex: Regex,
        node: Node,
        *,
        folding: Folding | None,
        keywords: tuple[str, ...] | None = None,
    ) -> None:
        self.regex = regex
        self.node = node
        self.folding = folding
        self.keywords = shape.literals(node) if keywords is None else keywords
        self.gates = _gates(self.keywords)  # regexes; a text that fits none of them has no match
        if keywords is None:
            self.keywords = () if all(map(is_number, self.keywords)) else self.keywords
            gate = shape.gate(node) if self.keywords else narrow(node)
            self.gates = (gate,) if gate else ()
        self.heads = heads(node)
        self.signs: Signs | None = None
        self.max_width = shape.max_width(node)
        self.late_assertion = shape.late_assertion(node)
        self._open_tail: Regex | None = None

    @property
    def open_tail(self) -> Regex:
        """An open match: a beginning that reaches the end.  Sets are already widened for case.

        Only rules that hold streams back need it, and it takes as long as all the rest, so it is
        compiled when it is first asked for: those do so when they are read.  Raises LinearError."""
        if self._open_tail is None:
            begun, start = shape.beginnings(self.node), shape.opening(self.node)
            self._open_tail = Regex(f"(?:|{start}(?:{begun}))\\z", max_mem=INNER_MEM_BYTES)
        return self._open_tail

    @open_tail.setter
    def open_tail(self, tail: Regex) -> None:
        self._open_tail = tail

    def gated(self, gate: str) -> "Pattern":
        """The same pattern behind a regex that fits somewhere in every text where a hit counts; the
        literals that it has already are kept."""
        if self.keywords:
            return self
        found = self.with_keywords(self.keywords)
        found.gates = (gate,)
        return found

    def with_keywords(self, keywords: tuple[str, ...]) -> "Pattern":
        """The same pattern behind another prefilter."""
        found = Pattern(self.regex, self.node, folding=self.folding, keywords=keywords)
        found._open_tail = self._open_tail
        return found

    def of_signs(self) -> "Pattern":
        """The same pattern, which is a set of characters, or a run of them."""
        self.signs = signs(self.node)
        return self

    def __repr__(self) -> str:
        return f"<Pattern {len(self.keywords)} keywords>"


def _gates(keywords: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(shape.escaped, keywords))


@dataclass(frozen=True, slots=True, eq=False)
class RuleFacts:
    """What every rule says of itself, whatever it looks for; kinds add what they look with."""

    pack: PackFacts
    rule_id: str
    severity: Severity
    action: Action
    shadow: bool
    on_error: OnError
    detector: str
    confidence: float
    message: str | None
    order: int  # place in the pack
    reach: Reach
    sample_pct: float  # of the requests that it looks at; below 100 only in shadow
    reroute_to: tuple[str, ...]  # endpoints that take the route's place, in order

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Stronger rules first: action, severity, order of packs, order in the pack."""
        weight = -SEVERITY_RANK[self.severity]
        return STRENGTH[self.action], weight, self.pack.order, self.order

    @property
    def rewrites(self) -> bool:
        return self.action in ("redact", "replace")

    @property
    def enforces(self) -> bool:
        """It can hold back, change or stop a text; a rule that does not only watches."""
        return not self.shadow and (self.rewrites or self.action == "block")

    @property
    def reroutes(self) -> bool:
        return not self.shadow and self.action == "reroute"

    @property
    def exempts(self) -> bool:
        return not self.shadow and self.action == "allow"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pack.policy_id}/{self.rule_id} {self.action}>"


@dataclass(frozen=True, slots=True)
class Tally:
    """Hits of a rule act only once so many different families were hit."""

    family: str
    block_at: int


@dataclass(frozen=True, slots=True, eq=False)
class LiveRule(RuleFacts):
    """A rule that looks for a pattern in texts.

    `check` None: every hit counts.  `belongs` (text, start, end): a hit that is where it must be
    does not count; it may look at one character on either side.  `context`: words that make a hit
    likely; below `threshold` of confidence it does not count.  `certain_from`: after so many
    characters of a match that still goes on its verdict is settled (None: never before its end).
    `placeholder_label`: of placeholders that are undone in the answer (requests only; empty: none).
    `settled`: tells of a match that still goes on whether its verdict is settled, for rules whose
    `certain_from` does not.  `tally`: its hits are counted (`scoring`).  `decode`: encodings whose
    runs are looked into, in requests.  `retry`: a refused hit is tried again one character after
    its start."""

    replacement: str
    pattern: Pattern
    group: int
    check: Check | None
    belongs: Callable[[str, int, int], bool] | None
    context: ContextWords | None
    threshold: float
    certain_from: int | None
    placeholder_label: str = ""
    settled: Callable[[str], bool] | None = None
    tally: Tally | None = None
    decode: tuple[Encoding, ...] = ()

    @property
    def needs_context(self) -> bool:
        """Without a word of context no hit counts."""
        return self.context is not None and (
            self.context.required or self.confidence < self.threshold
        )

    @property
    def never_early(self) -> bool:
        """A match cannot be settled before all text around it is known."""
        return self.pattern.folding is not None or self.tally is not None

    @property
    def may_settle(self) -> bool:
        """A match that still goes on can be settled."""
        return self.certain_from is not None or self.settled is not None

    def settles(self, match: str) -> bool:
        """The verdict on a match that goes on is the one on so much of it."""
        if self.settled is not None:
            return self.settled(match)
        return self.certain_from is not None and len(match) >= self.certain_from

    @property
    def weighs_nothing(self) -> bool:
        """Whether a match counts hangs on where it stands alone."""
        return self.check is None and self.context is None and self.group == 0

    @property
    def retry(self) -> bool:
        return self.check is not None and self.pattern.max_width is not None
