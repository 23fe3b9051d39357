"""Texts that the guard is measured on: ordinary ones, and those that somebody made to hurt it.

Prose is taken from the interpreter's own help, so it is real, long and in no file of ours; the rest
is made by chance from a seed, so that two versions of the code see the same texts.
"""

import pydoc_data.topics
import random
import re
from collections.abc import Callable, Sequence

from proxy.guardrails.samples import SENTENCES, WARM
from proxy.model.policy import PolicyPack

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
BASE64 = LETTERS + "+/"
PIECES = (
    "sk-", "sk-ant-", "ghp_", "eyJ", ".eyJ", "AKIA", "xoxb-", "key=", "token: ", "://", ":", "@",
    "a.b", "+49", "4111", "12-", "-----BEGIN ", "GB82", "0x", "::", "\u200b", "\u0301", "é", "漢字",
    "🙂", " ", "\n", "_", "/", "=", "secret", "aws_secret_key", "hf_", "npm_", "A3-", "dp.pt.",
)  # fmt: skip
SIGNS = "a1:@-\x01\u200b\u200d\ufe0f\u0301\u202e\ue000\U000e0041"
NEARLY = (
    "4111 1111 1111 1112", "GB82 WEST 1234 5698 7654 33", "000-45-6789", "jane.doe@example.c1",
    "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9.", "-----BEGIN RSA PRIVATE KEY", "+1 2 3 4 5",
    "sk-proj-short", "ghp_tooshort", "xoxb-1-2", "300.300.300.300", "1:2:3:4", "https://user@host",
)  # fmt: skip


def prose(chars: int) -> str:
    """Paragraphs of ordinary words, in no order that repeats."""
    found = [" ".join(SENTENCES)]
    for topic in pydoc_data.topics.topics.values():
        for paragraph in re.split(r"\n\s*\n", topic):
            text = " ".join(paragraph.split())
            plain = sum(c.isalpha() or c in " ,." for c in text)
            if len(text) > 200 and plain > 0.98 * len(text):
                found.append(text)
    random.Random(1).shuffle(found)
    text = "\n\n".join(found)
    return (text * (chars // len(text) + 1))[:chars]


def everyday(chars: int) -> str:
    """The words of sentences about this and that, shorter than those of a manual."""
    words = " ".join(SENTENCES[:16]).split()
    return " ".join(random.Random(2).choices(words, k=chars // 4))[:chars]


def ordinary(chars: int) -> dict[str, str]:
    return {
        "everyday": everyday(chars),
        "prose": prose(chars),
        "code": (WARM[1] * (chars // len(WARM[1]) + 1))[:chars],
    }


def hostile(chars: int, packs: Sequence[PolicyPack]) -> dict[str, str]:
    """What costs most: much that nearly matches, and states that never repeat."""
    chance = random.Random(7)
    words = [text for pack in packs for rule in pack.rules for text in rule.tests.no_match]
    context = [word for pack in packs for rule in pack.rules if rule.context
               for word in rule.context.words]  # fmt: skip

    def run(alphabet: str) -> str:
        return "".join(chance.choices(alphabet, k=chars))

    def pieces(make: Callable[[], str]) -> str:
        out: list[str] = []
        size = 0
        while size < chars:
            out.append(make())
            size += len(out[-1])
        return "".join(out)[:chars]

    return {
        "a…a! (backtracking)": "a" * (chars - 1) + "!",
        "a.a.a@a.a (nested)": ("a." * 30 + "@" + "a." * 90 + "1 ") * (chars // 243 + 1),
        "digits, spaces": run("0123456789 "),
        "2 2 2 2": "2 " * (chars // 2),
        "41111…": "4" + "1" * (chars - 1),
        "hex, colons": run("0123456789abcdef:"),
        "base64": run(BASE64),
        "printable": run("".join(map(chr, range(32, 127)))),
        "pieces of rules": pieces(
            lambda: chance.choice(PIECES)
            + "".join(chance.choices(LETTERS, k=chance.choice((0, 0, 1, 3, 12, 40))))
        ),
        "near misses": pieces(lambda: chance.choice(NEARLY) + " "),
        "what packs refuse": pieces(lambda: chance.choice(words) + " "),
        "words and numbers": pieces(lambda: chance.choice(context) + " " + "".join(
            chance.choices("0123456789", k=chance.choice((8, 9, 10, 11, 13, 16)))) + " "),
        "invisible": run("ab\u200b\u200d\u0301\ufe0f\U000e0041é"),
        "matches": pieces(lambda: f"{chance.choice('abcd')}{chance.randrange(10**6)}@b.com "),
    }  # fmt: skip
