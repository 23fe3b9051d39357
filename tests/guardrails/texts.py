"""Texts and packs for the guard's tests, made by chance from a seed.

Keys are put together at run time, so that none stands in a file.
"""

import random
from collections.abc import Iterator, Sequence

from proxy.model.policy import PolicyPack

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PROSE = """the of to and in is that for it as was with be by on not he but at are this have from or
had an they which one you were all she there would their we him been has when who will more no if
out so said what up its about into than them can only other new some could time these two may then
do first any my now such like our over even most made after also did many before must through years
where much your way well down should because each just those people how too little state good very
make world still see own men work long here get both invoice ticket server model answer request 42
2024 3.14 10:30 v2.1 e.g. (see) "yes" it's well-known a/b x=1 key= sk- eyJ"""
WORDS = PROSE.split()


def pack(*rules: dict[str, object], **members: object) -> PolicyPack:
    """A pack of one's own; rules without an id get one."""
    named = [{"rule_id": f"r{at}", **rule} for at, rule in enumerate(rules)]
    return PolicyPack.model_validate({"policy_pack_id": "own", "rules": named, **members})


class Maker:
    """Random texts, and ways to cut them."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)

    def run(self, alphabet: str, low: int, high: int) -> str:
        return "".join(self.r.choices(alphabet, k=self.r.randint(low, high)))

    def prose(self, low: int, high: int) -> str:
        return " ".join(self.r.choices(WORDS, k=self.r.randint(low, high)))

    def disguised(self, text: str) -> str:
        table = {"a": "а", "e": "е", "o": "ο", "c": "с", "p": "ｐ", "s": "ѕ", "h": "һ", "t": "ｔ"}
        noise = ["", "", "", "\u200b", "\u00ad", "\U000e0041", "\u0301"]
        return "".join(
            (table.get(c, c) if self.r.random() < 0.4 else c) + self.r.choice(noise) for c in text
        )

    def cuts(self, text: str) -> Iterator[str]:
        style: Sequence[int] = self.r.choice(
            [(1,), (1, 1, 2, 3, 5, 8, 20), (4, 5, 6), (64,), (100_000,)]
        )
        at = 0
        while at < len(text):
            size = self.r.choice(style)
            yield text[at : at + size]
            at += size
