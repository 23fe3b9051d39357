"""What the maps of both dialects share: objects of which some members are structural.

Law (guardrails.md §7.1): a map names the members that are words of the protocol, and every other
string is text.  Only a string is structural, or a list of them: an object that stands under such a
name is walked like any other, so nothing can hide below it.
"""

from collections.abc import Collection
from typing import Final

from proxy.model.exchange import Json, Part
from proxy.wire.jsonbody import Path
from proxy.wire.leaves import Gather

# What stands in the small objects of settings: kinds, modes, how long a cache lives.
OPTION_WORDS: Final = frozenset({"type", "mode", "ttl"})
# What a provider sealed, for itself to read.
OPAQUE: Final = frozenset({"encrypted_content", "encrypted_index", "signature"})
NO_TEXT: Final = frozenset({int, float, bool, type(None)})  # types of values without a string
_DEPTH: Final = 100
_SCHEME: Final = "data:"
_BEFORE_A_URL: Final = "".join(map(chr, range(33)))  # what a reader of URLs strips


def beside(
    gather: Gather,
    value: Json,
    part: Part,
    path: Path,
    words: Collection[str],
    *,
    rewritable: bool = True,
) -> None:
    """Every string below `value` but those that stand under a name of `words`."""
    if type(value) is dict:
        _deep(path)
        for name, child in value.items():
            if type(child) in NO_TEXT:
                continue
            if name in words:
                below(gather, child, part, (*path, name), words, rewritable=rewritable)
            else:
                beside(gather, child, part, (*path, name), words, rewritable=rewritable)
    elif type(value) is list:
        _deep(path)
        for place, child in enumerate(value):
            beside(gather, child, part, (*path, place), words, rewritable=rewritable)
    elif type(value) is str:
        gather.text(value, part, path, rewritable=rewritable)


def below(
    gather: Gather,
    value: Json,
    part: Part,
    path: Path,
    words: Collection[str],
    *,
    rewritable: bool = True,
) -> None:
    """The value of a structural member: a string in it is none of ours, an object's strings are."""
    if type(value) is dict:
        beside(gather, value, part, path, words, rewritable=rewritable)
    elif type(value) is list:
        _deep(path)
        for place, child in enumerate(value):
            below(gather, child, part, (*path, place), words, rewritable=rewritable)
    elif path[-1] in OPAQUE:
        gather.miss("opaque", value)


def url(gather: Gather, value: Json, path: Path) -> None:
    """A URL.  Whoever fetches it reads its scheme in any case, and no media type as plain text."""
    if type(value) is str:
        bare = value.lstrip(_BEFORE_A_URL)
        if bare[: len(_SCHEME)].lower() == _SCHEME:
            rest = bare[len(_SCHEME) :]
            value = _SCHEME + ("text/plain" + rest if rest[:1] in (";", ",") else rest.lstrip())
    gather.url(value, path)


def is_data_url(value: Json) -> bool:
    return type(value) is str and value.lstrip(_BEFORE_A_URL)[: len(_SCHEME)].lower() == _SCHEME


def _deep(path: Path) -> None:
    if len(path) > _DEPTH:
        raise ValueError("nested too deeply")
