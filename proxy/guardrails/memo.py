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
_DIGEST_BYTES: Final = 16

Key = tuple[int, str, bytes]
Span = tuple[int, int, int, int, int, float]  # rule, first, last, start, end, confidence


class Memo:
    """The texts judged last, least recently used out first.  Any thread may ask.  `known`: how many
    texts were found here, `unknown`: how many were not; 0 entries switch it off."""

    __slots__ = ("_entries", "_kept", "known", "unknown")

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._kept: OrderedDict[Key, tuple[object, Sequence[Span]]] = OrderedDict()
        self.known = self.unknown = 0

    def key(self, rules: RuleSet, leaf: Leaf) -> Key | None:
        """None: such a text is not kept.  Names of members that lead to it may count as well, so
        what stands in the arguments of tools is judged each time."""
        if self._entries < 1 or leaf.inner is not None or len(leaf.text) < MIN_CHARS:
            return None
        data = leaf.text.encode("utf-8", "surrogatepass")
        return id(rules.token), leaf.part, blake2b(data, digest_size=_DIGEST_BYTES).digest()

    def find(self, key: Key, rules: RuleSet) -> Sequence[Hit] | None:
        """The hits of that text; None: it is not known."""
        found = self._kept.pop(key, None)
        if found is None or found[0] is not rules.token:
            self.unknown += 1
            return None
        self._kept[key] = found  # now the youngest
        self.known += 1
        return [
            Hit(rules.rules[index], first, last, start, end, True, confidence)
            for index, first, last, start, end, confidence in found[1]
        ]

    def keep(self, key: Key, rules: RuleSet, hits: Sequence[Hit]) -> None:
        places = {id(rule): index for index, rule in enumerate(rules.rules)} if hits else {}
        self._kept[key] = (
            rules.token,
            [
                (places[id(hit.rule)], hit.first, hit.last, hit.start, hit.end, hit.confidence)
                for hit in hits
            ],
        )
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<Memo {len(self._kept)} texts>"
