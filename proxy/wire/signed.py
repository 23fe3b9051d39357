"""Answers whose reasoning is signed: edited, it is not what was signed (guardrails.md §9.7)."""

from collections.abc import Sequence

from proxy.model.exchange import Json, Leaf
from proxy.wire import jsonbody
from proxy.wire.leaves import apply_rewrites


def rewritten(
    body: bytes, doc: jsonbody.Object, rewrites: Sequence[tuple[Leaf, str]], *, drops: bool
) -> bytes:
    """`body`, whose parse is `doc`, with each leaf replaced by its text.

    An edited block that is signed would be refused on the next turn: with `drops` it is left out,
    else its signature is.  Raises jsonbody.BodyFault for a leaf that cannot be rewritten."""
    blocks = doc.get("content")
    signed = {_block_of(leaf) for leaf, _ in rewrites if leaf.part == "reasoning"}
    if type(blocks) is not list or not any(map(_is_signed, blocks)) or not signed:
        return apply_rewrites(body, doc, rewrites)
    gone = {place for place, block in enumerate(blocks) if place in signed and _is_signed(block)}
    kept = [each for each in rewrites if not drops or _block_of(each[0]) not in gone]
    body = apply_rewrites(body, doc, kept)
    edited = jsonbody.read_object(body).get("content")
    assert type(edited) is list, "texts alone were rewritten"
    left = [
        _unsigned(block) if place in gone else block
        for place, block in enumerate(edited)
        if not drops or place not in gone
    ]
    return jsonbody.splice(body, {("content",): jsonbody.dumps(left)}) if gone else body


def _block_of(leaf: Leaf) -> int | None:
    if len(leaf.path) < 2 or leaf.path[0] != "content":
        return None
    place = leaf.path[1]
    return place if type(place) is int else None


def _is_signed(block: object) -> bool:
    return isinstance(block, dict) and bool(block.get("signature"))


def _unsigned(block: Json) -> Json:
    if type(block) is not dict:
        return block
    return {name: value for name, value in block.items() if name != "signature"}
