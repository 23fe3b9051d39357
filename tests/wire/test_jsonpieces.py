"""JSON that is still being written: what of it is a text, whatever the pieces."""

import json
import random

import pytest

from proxy.wire.jsonpieces import JsonPieces


def read(*pieces: str) -> tuple[list[str], str, JsonPieces]:
    """The string values, everything as it came, and the reader."""
    reader, values, raws, value = JsonPieces(), [], [], ""
    for piece in pieces:
        for kind, said, raw in reader.feed(piece):
            raws.append(raw)
            if kind == "said":
                value += said
            elif kind == "closed":
                values.append(value)
                value = ""
    return ([*values, value] if value else values), "".join(raws) + reader.kept, reader


@pytest.mark.parametrize(
    ("pieces", "values"),
    [
        (['{"a":"b"}'], ["b"]),
        (['{"a', '":"b', 'c"', "}"], ["bc"]),
        ([r'{"a":"x\u00', r'e9y"}'], ["xéy"]),
        ([r'{"a":"\ud83d\u', r'de00"}'], ["😀"]),
        (['{"a":"\\', '""}'], ['"']),
        ([r'["\\", "\/\b\f\n\r\t"]'], ["\\", "/\b\f\n\r\t"]),
        (['{"k":{"a":["x",1,-0.5e+3,true,null,"y"]},"z":""}'], ["x", "y", ""]),
        (['"alone"'], ["alone"]),
        ([" [ ] "], []),
        (["12", "34 "], []),
        (['{"a":"cut'], ["cut"]),
    ],
)
def test_a_text_is_told_from_what_stands_around_it(pieces: list[str], values: list[str]) -> None:
    found, raw, reader = read(*pieces)
    assert found == values
    assert raw == "".join(pieces)
    assert not reader.broken


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("KEY12345", ""),
        ('{"a":KEY1}', '{"a":'),
        ('{"a":tKEY}', '{"a":t'),
        ('{"a":1-2-3}', '{"a":'),
        ('{"a":01}', '{"a":'),
        ('{"a":"x\ny"}', '{"a":"x'),
        (r'{"a":"x\qy"}', '{"a":"x'),
        (r'{"a":"x\u12G4"}', '{"a":"x'),
        ("{'a':1}", "{"),
        ('{"a" "b"}', '{"a" '),
        ('{"a":"b"}KEY', '{"a":"b"}'),
        ('{"a":"b"]', '{"a":"b"'),
        ("[1,]", "[1,"),
        ("{,}", "{"),
        ("]", ""),
        ("[" * 1000, "[" * 64),
        ("[" + "1" * 500, "["),
    ],
)
def test_from_where_it_is_no_json_nothing_passes(text: str, passes: str) -> None:
    reader = JsonPieces()
    found = reader.feed(text)
    assert reader.broken
    assert "".join(raw for kind, _, raw in found if kind != "rest") == passes
    assert "".join(raw for _, _, raw in found) == text
    assert reader.feed("more") == [("rest", "more", "more")]
    assert not reader.done


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'"\ud83d x"', "\ufffd x"),
        (r'"\ude00"', "\ufffd"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd😀"),
        (r'"\ud83d\n"', "\ufffd\n"),
    ],
)
def test_an_unpaired_half_is_replaced(text: str, said: str) -> None:
    for cut in range(len(text) + 1):
        assert read(text[:cut], text[cut:])[0] == [said]


def value(r: random.Random, depth: int = 0) -> object:
    kinds = ["str", "str", "num", "word"] + ([] if depth > 4 else ["list", "dict", "dict"])
    match r.choice(kinds):
        case "str":
            return "".join(r.choices('ab "\\/\n\té日😀{}[]:,', k=r.randint(0, 12)))
        case "num":
            return r.choice([0, -1, 12, 3.5, -2e-7, 10**15])
        case "word":
            return r.choice([True, False, None])
        case "list":
            return [value(r, depth + 1) for _ in range(r.randint(0, 4))]
        case _:
            return {f"k{n}\n": value(r, depth + 1) for n in range(r.randint(0, 4))}


def strings(node: object) -> list[str]:
    if isinstance(node, str):
        return [node]
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [text for child in below for text in strings(child)]


def test_any_value_cut_anywhere_says_the_same() -> None:
    r = random.Random(11)
    for _ in range(600):
        made = value(r)
        text = json.dumps(made, ensure_ascii=r.random() < 0.5, indent=r.choice([None, 1]))
        pieces, at = [], 0
        while at < len(text):
            size = r.choice((1, 2, 3, 7, 40))
            pieces.append(text[at : at + size])
            at += size
        found, raw, reader = read(*pieces)
        assert found == strings(made)
        assert raw == text
        assert not reader.broken
        assert reader.done or made is None or isinstance(made, int | float)
