"""The words of all adapters: a question, what a service says of it, and how lies are told apart.

SECURITY: a service is believed only where what it says is possible: offsets inside the text, scores
from 0 to 1, one answer per question.  Anything else is `Unreadable`, which is a check that failed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.model.documents import Severity
from proxy.model.exchange import Direction, Json, Part, Role
from proxy.model.policy import Action

AdapterName = Literal[
    "http", "openai_moderation", "bedrock_guardrail", "presidio", "llama_guard"
]  # fmt: skip
Stage = Literal["preflight", "parallel", "buffer", "window", "post"]
Object = dict[str, Json]

MAX_SPOTS: Final = 10_000  # in one text
NAME_CHARS: Final = 128


class Unreadable(ValueError):
    """The answer is not what the service promises.  The text names the member, not its value."""


@dataclass(frozen=True, slots=True)
class Question:
    """One text.  `before`: what the user said last, where an answer is looked at; for services that
    judge an answer by what was asked."""

    text: str
    direction: Direction
    part: Part
    role: Role
    before: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: for services that want to know."""

    route_id: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Category:
    """What a rule says of one category: from which score on it counts, how bad it is, what is done.
    None: as the rule says.  Action `allow`: it does not count."""

    threshold: float | None = None
    severity: Severity | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What adapters need of a rule.  `threshold` None: the service's own verdict counts, and where
    it has only scores, `doubt` is the threshold."""

    threshold: float | None = None
    doubt: float = 0.5
    categories: Mapping[str, Category] = field(default_factory=dict)
    model: str = ""
    language: str = "en"
    entities: tuple[str, ...] = ()
    allow_list: tuple[str, ...] = ()
    guardrail: tuple[str, str] = ("", "")  # id and version

    def counts(self, category: str, score: float, says: bool | None = None) -> bool:
        """Whether a finding counts; `says` is the service's own verdict on it."""
        own = self.categories.get(category)
        if own is not None and own.action == "allow":
            return False
        limit = own.threshold if own is not None and own.threshold is not None else self.threshold
        if limit is not None:
            return score >= limit
        return score >= self.doubt if says is None else says


@dataclass(frozen=True, slots=True)
class Spot:
    """A finding at a place of the text, in code points.  `replacement`: the service's own words."""

    start: int
    end: int
    category: str = ""
    score: float = 1.0
    replacement: str | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a service says of one text; without spots it has nothing against it.

    `rewritten`: the whole text as the service wants it.  `stops`: the service itself tells block
    (True) from redaction (False).  `looked_at`: of how many characters it knows, where it says so.
    """

    spots: tuple[Spot, ...] = ()
    rewritten: str | None = None
    stops: bool | None = None
    looked_at: int | None = None


FINE: Final = Opinion()


@dataclass(frozen=True, slots=True)
class Adapter:
    """One service.  `path` is below its base URL; `batch`: texts in one call.  `points`: it says
    where in a text its findings are."""

    name: AdapterName
    path: str
    batch: int
    timeout_ms: int
    points: bool
    ask: Callable[[Spec, Sequence[Question], Asker], Object]
    read: Callable[[Spec, Sequence[Question], Json], list[Opinion]]


# --- reading


def an_object(value: Json, what: str) -> Object:
    """Raises Unreadable."""
    if type(value) is not dict:
        raise Unreadable(f"{what} is no object")
    return value


def a_list(value: Json, what: str, most: int = MAX_SPOTS) -> list[Json]:
    """Raises Unreadable."""
    if type(value) is not list:
        raise Unreadable(f"{what} is no list")
    if len(value) > most:
        raise Unreadable(f"{what} is too long")
    return value


def a_score(value: Json, what: str) -> float:
    """Raises Unreadable for what is not from 0 to 1."""
    if type(value) not in (int, float):
        raise Unreadable(f"{what} is no number")
    assert isinstance(value, (int, float))
    if not 0 <= value <= 1:  # false for NaN
        raise Unreadable(f"{what} is not from 0 to 1")
    return float(value)


def a_name(value: Json, what: str) -> str:
    """A category, which stands in events.  Raises Unreadable for what cannot be one."""
    if type(value) is not str or not value or len(value) > NAME_CHARS or not value.isprintable():
        raise Unreadable(f"{what} is no name")
    return value


def a_place(span: Object, text: str, what: str) -> tuple[int, int]:
    """`start` and `end` of a span.  Raises Unreadable for what lies outside the text."""
    start, end = span.get("start"), span.get("end")
    if type(start) is not int or type(end) is not int:
        raise Unreadable(f"{what} has no offsets")
    if not 0 <= start < end <= len(text):
        raise Unreadable(f"{what} lies outside the text")
    return start, end


def all_of(question: Question, category: str, score: float = 1.0) -> Spot:
    """A finding of a service that does not say where."""
    return Spot(0, len(question.text), category, score)
