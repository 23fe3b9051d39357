"""What a guard finds of made-up keys and sentences, and in ordinary texts: counts, and the gates.

Recall: of what is there, the share that was found whole.  Precision: of what was found, the share
that is there.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks.quality.keys import KEYS, SHAPES, key_of
from benchmarks.quality.people import ENTITIES, lookalike, sentence
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack, PolicyResult
from proxy.model.tenancy import GuardSettings
from proxy.settings.packs import builtin_packs

SECRET_RECALL = 1.0
PEOPLE_RECALL = 0.95
PEOPLE_PRECISION = 0.9
CONTENT_SHARE = 0.01
SEED = 15
_RECORDS = ("log", "flag")
_WOULD_RECORD = ("would log", "would flag")


@dataclass(slots=True)
class Score:
    """Of one rule: `found` of `there`, and `false` finds.  `others`: finds in another number of a
    person, which are no harm but bear the wrong name."""

    name: str
    there: int = 0
    found: int = 0
    false: int = 0
    others: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.there if self.there else 1.0

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else 1.0


@cache
def shipped() -> Mapping[str, PolicyPack]:
    return {name: source.pack for name, source in builtin_packs().items()}


def guard_of(packs: Iterable[PolicyPack]) -> Guard:
    return compile_guard(list(packs), GuardSettings())


def found_in(guard: Guard, text: str) -> list[PolicyResult]:
    return guard.judge([Leaf(text, "text", "user", ())], "request").results


def secrets(guard: Guard, keys_each: int = 1) -> list[Score]:
    """Every rule, in every shape, whole and cut into pieces of five characters: its key must not
    leave."""
    scores = []
    for rule_id in KEYS:
        r, score = random.Random(f"{SEED}{rule_id}"), Score(rule_id)
        for shape in list(SHAPES.values()) * keys_each:
            key = key_of(rule_id, r)
            text = shape.format(key)
            hit = {one.rule_matched for one in found_in(guard, text) if one.enforced}
            lane = guard.lane("text")
            assert lane is not None
            left = [lane.feed(text[at : at + 5]) for at in range(0, len(text), 5)]
            score.there += 1
            score.found += rule_id in hit and key not in "".join([*left, lane.finish()])
        scores.append(score)
    return scores


def people(guard: Guard, sentences_each: int = 200) -> list[Score]:
    """Every rule of pii-core, shadow rules too, over sentences about people and some that only look
    so.  Found: the very place.  False: a hit at another place, or in a sentence about nobody."""
    scores = {entity: Score(entity) for entity in ENTITIES}
    for entity in ENTITIES:
        r = random.Random(f"{SEED}{entity}")
        for _ in range(sentences_each):
            text, start, end = sentence(entity, r)
            scores[entity].there += 1
            for one in found_in(guard, text):
                if one.rule_matched == entity:
                    right = (one.span_start, one.span_end) == (start, end)
                    scores[entity].found += right
                    scores[entity].false += not right or one.count > 1
                elif one.rule_matched in scores:
                    scores[one.rule_matched].others += 1
    r = random.Random(SEED)
    for _ in range(10 * sentences_each):
        for one in found_in(guard, lookalike(r)):
            if one.rule_matched in scores:
                scores[one.rule_matched].false += 1
    return list(scores.values())


@dataclass(slots=True)
class Benign:
    """Ordinary texts: how many, and how many of them each rule would change or stop; `enforced`:
    it does."""

    texts: int
    enforced: Mapping[str, int]
    would: Mapping[str, int]


def benign(packs: Sequence[PolicyPack], texts: Iterable[str]) -> Benign:
    """Judged as requests and as answers by all packs together."""
    guard = guard_of(packs)
    enforced: Counter[str] = Counter()
    would: Counter[str] = Counter()
    count = 0
    for text in texts:
        count += 1
        results = found_in(guard, text)
        answer = guard.judge([Leaf(text, "text", "assistant", ())], "response")
        hit = {
            (f"{one.policy_id}/{one.rule_matched}", one.enforced)
            for one in (*results, *answer.results)
            if one.action_taken not in _RECORDS and one.message not in _WOULD_RECORD
        }
        enforced.update(name for name, live in hit if live)
        would.update(name for name, live in hit if not live)
    return Benign(count, enforced, would)
