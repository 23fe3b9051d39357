"""The YAML reader: values, lines, and files that mean harm."""

import pytest

from proxy.model.exchange import Json
from proxy.settings.problems import ConfigError
from proxy.settings.yamlfile import MAX_FILE_BYTES, parse_yaml

# fmt: off
VALUES: list[tuple[str, Json]] = [
    ("",                                None),
    ("a: 1",                            {"a": 1}),
    ("a: [1, -2, 2.5, .5]",             {"a": [1, -2, 2.5, 0.5]}),
    ("a: " + "0" * 64,                   {"a": "0" * 64}),
    ("a: off\nb: no\nc: yes\nd: on",    {"a": "off", "b": "no", "c": "yes", "d": "on"}),
    ("a: true\nb: False",               {"a": True, "b": False}),
    ("a: ~\nb: null\nc:",               {"a": None, "b": None, "c": None}),
    ("a: 12:30\nb: 2024-03-15",         {"a": "12:30", "b": "2024-03-15"}),
    ("a: '1'\nb: !!str 1\nc: \"true\"", {"a": "1", "b": "1", "c": "true"}),
    ("1: a\ntrue: b",                   {"1": "a", "true": "b"}),
    ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
    ("a: &x {p: 1}\nb: &y {p: 2, q: 3}\nc: {<<: [*x, *y]}",
     {"a": {"p": 1}, "b": {"p": 2, "q": 3}, "c": {"p": 1, "q": 3}}),
    ('{"a": {"b": [1, "x"]}}',          {"a": {"b": [1, "x"]}}),
    ('{\n\t"a": "\\ud83d\\ude00\\/"\n}', {"a": "😀/"}),
    ('a: "\\U0001F600"',                {"a": "😀"}),
    ("\ufeffa: 1",                      {"a": 1}),
]

WRONG: list[tuple[bytes, str]] = [
    (b"a: 1\nb: 2\na: 3",               "f.yaml:3: a: comes twice in one mapping (first"),
    (b"x:\n  - {k: 1, k: 2}",           "f.yaml:2: x[0].k: comes twice"),
    (b"a: [",                           "not YAML"),
    (b"a: *nowhere",                    "f.yaml:1: not YAML: found undefined alias"),
    (b"a: 1\n---\nb: 2",                "another document"),
    (b"a: \x00",                        "not allowed"),
    (b"\xff\xfe",                       "not UTF-8 at byte 0"),
    (b"a: !!python/object/apply:os.system [x]", "f.yaml:1: a: tags are not used here"),
    (b"a: !custom x",                   "f.yaml:1: a: tags are not used here"),
    (b"a: !!binary aGk=",               "tags are not used here"),
    (b"? [a]\n: 1",                     "a member's name must be plain text"),
    (b"a: {<<: 1}",                     "<< takes a mapping"),
    (b"&a [*a]",                        "an alias leads into itself"),
    (b"[" * 100_000,                    "nested more than 64 levels deep"),
    (b"a: " * 100_000,                  "not YAML"),
    (b"#" * (MAX_FILE_BYTES + 1),       "larger than 4194304 bytes"),
]
# fmt: on


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values(text: str, value: Json) -> None:
    assert parse_yaml(text.encode(), "f.yaml").value == value


@pytest.mark.parametrize(("data", "said"), WRONG)
def test_what_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(data, "f.yaml")
    assert said in str(caught.value)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"surrogate|Unicode"):
        parse_yaml(b'{"a": "\\ud83d"}', "f.yaml")


@pytest.mark.thorough
def test_a_small_file_cannot_become_a_large_one() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="more than 400000 values"):
        parse_yaml("\n".join(levels).encode(), "f.yaml")


def test_every_duplicate_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(b"a: 1\na: 2\nb: {c: 1, c: 2}", "f.yaml")
    assert [problem.line for problem in caught.value.problems] == [2, 3]


def test_lines() -> None:
    tree = parse_yaml(b"a: 1\nb:\n  - c: 2\n    d:\n      e: 3\n", "f.yaml")
    assert tree.line_of(("a",)) == 1
    assert tree.line_of(("b", 0, "d", "e")) == 5
    assert tree.line_of(("b", 0, "missing", "deeper")) == 3
