"""What was found in the texts judged last, so that the resent history of a chat is not read again.

In charge of one bounded table for all guards of a worker.  It holds offsets and digests, no text,
and keeps no rule alive.  Invariant: an entry is of the very rule set that asks for it (what is
compiled again is another one), and of a text that no check broke on.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from proxy.guardrails.matching import RuleSet
from proxy.guardrails.redact import Hit
from proxy.model.exchange import Leaf

ENTRIES: Final = 4_096
MIN_CHARS: Final = 256  # shorter texts are judged as quickly as they are looked up
MAX_SPANS: Final = 200_000  # of all entries together
_MOST: Final = 10_000  # spans of one text
_DIGEST_BYTES: Final = 16

Key = tuple[int, str, bytes]
Span = tuple[int, int, int, int, int, float, int, list[int] | None]  # rule, and what a hit says


class Memo:
    """The texts judged last, least recently used out first.  Any thread may ask.  `known`: how many
    texts were found here, `unknown`: how many were not; 0 entries switch it off."""

    __slots__ = ("_entries", "_kept", "_spans", "known", "unknown")

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._kept: OrderedDict[Key, tuple[object, Sequence[Span]]] = OrderedDict()
        self._spans = 0
        self.known = self.unknown = 0

    def key(self, rules: RuleSet, leaf: Leaf, data: bytes) -> Key | None:
        """`data`: the text, encoded.  None: such a text is not kept.  Names of members that lead to
        it may count as well, so what stands in the arguments of tools is judged each time."""
        if self._entries < 1 or leaf.inner is not None or len(leaf.text) < MIN_CHARS:
            return None
        return id(rules.token), leaf.part, blake2b(data, digest_size=_DIGEST_BYTES).digest()

    def find(self, key: Key, rules: RuleSet) -> Sequence[Hit] | None:
        """The hits of that text; None: it is not known."""
        found = self._kept.pop(key, None)
        if found is None or found[0] is not rules.token:
            self._spans -= _size(found[1]) if found is not None else 0
            self.unknown += 1
            return None
        self._kept[key] = found  # now the youngest
        self.known += 1
        return [
            Hit(rules.rules[index], first, last, start, end, True, sure, count=count, spans=spans)
            for index, first, last, start, end, sure, count, spans in found[1]
        ]

    def keep(self, key: Key, rules: RuleSet, hits: Sequence[Hit]) -> None:
        if key in self._kept or len(hits) >= _MOST:
            return
        spans: list[Span] = []
        if hits:
            places = {id(rule): index for index, rule in enumerate(rules.rules)}
            spans = [
                (
                    places[id(hit.rule)], hit.first, hit.last, hit.start, hit.end, hit.confidence,
                    hit.count, hit.spans,
                )
                for hit in hits
            ]  # fmt: skip
            size = _size(spans)
            if size >= _MOST:
                return
            self._spans += size
        self._kept[key] = (rules.token, spans)
        while len(self._kept) > self._entries or self._spans > MAX_SPANS:
            gone = self._kept.popitem(last=False)[1][1]
            if gone:
                self._spans -= _size(gone)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<Memo {len(self._kept)} texts>"


def _size(spans: Sequence[Span]) -> int:
    return sum([1 + len(span[7] or ()) // 2 for span in spans])
