"""Bodies: what is refused on a guarded route, and bytes that are changed in place."""

import json

import pytest

from proxy.wire import jsonbody
from proxy.wire.jsonbody import BodyFault


def _rows(table: list[tuple]) -> list:
    return [pytest.param(*row[1:], id=row[0]) for row in table]


# fmt: off
REFUSED = [
    # name                body                                      reason
    ("not utf-8",         b'{"a":"\xff"}',                          "not UTF-8"),
    ("not json",          b"{",                                     "not JSON"),
    ("empty",             b"",                                      "not JSON"),
    ("an array",          b"[]",                                    "not a JSON object"),
    ("a bom",             b"\xef\xbb\xbf{}",                        "not JSON"),
    ("twice on top",      b'{"a":1,"a":2}',                         "'a' stands twice"),
    ("twice below",       b'{"x":[{"a":1,"a":2}]}',                 "'a' stands twice"),
    ("twice, escaped",    b'{"model":"x","mod\\u0065l":"y"}',       "'model' stands twice"),
    ("twice, backslashes", rb'{"p":"C:\\x","a":1,"a":2}',            "'a' stands twice"),
    ("twice, quotes",     rb'{"p":"\\\"","a":"\\","a":"x"}',        "'a' stands twice"),
    ("twice, disguised",  rb'{"p":"\\\u0022\u0022","a":1,"a":2}',    "'a' stands twice"),
    ("beyond, backslashes", rb'{"p":"C:\\x","a":18446744073709551616}', "64 bits"),
    ("half a pair",       b'{"a":"\\ud83d"}',                       "surrogate"),
    ("half in a name",    b'{"\\uDC00":1}',                         "surrogate"),
    ("beyond 64 bits",    b'{"a":18446744073709551616}',            "64 bits"),
    ("far below 0",       b'{"a":-9223372036854775809}',            "64 bits"),
    ("a million digits",  b'{"a":' + b"9" * 1_000_000 + b"}",       "64 bits"),
    ("beyond a float",    b'{"a":1e999}',                           "64 bits"),
    ("not a number",      b'{"a":NaN}',                             "NaN"),
    ("65 levels",         b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",  "deeper than 64"),
    ("a depth bomb",      b'{"a":' + b"[" * 100_000,                "deeper than 64"),
    ("a closed bomb",     b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "deeper than 64"),
]
ACCEPTED = [
    b"{}",
    b' {"a": 1}\n',
    b'{"a":18446744073709551615,"b":-9223372036854775808}',
    b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
    b'{"a":"\\ud83e\\udd89"}',
    b'{"a":{"a":1},"b":{"a":1}}',
    b'{"a":1.5e300}',
    rb'{"p":"C:\\x","q":"\\\"","r":"\\\\","s":"\u0022\\"}',
]
# fmt: on


@pytest.mark.parametrize(("body", "reason"), _rows(REFUSED))
def test_what_two_parsers_could_read_differently_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(BodyFault, match=reason):
        jsonbody.strict_object(body)


@pytest.mark.parametrize("body", ACCEPTED)
def test_what_is_accepted_is_read_as_json_reads_it(body: bytes) -> None:
    assert jsonbody.strict_object(body) == json.loads(body)


def test_the_lenient_reader_takes_the_last_of_two() -> None:
    assert jsonbody.read_object(b'{"a":1,"a":2}') == {"a": 2}
    for body in (b"[]", b"x", b"", b"\xff"):
        with pytest.raises(BodyFault):
            jsonbody.read_object(body)


# fmt: off
SPLICED = [  # the new value is "N"
    # name               body                                   after
    ("in the middle",    b'{"a":1, "model" : "x" ,"b":2}',      b'{"a":1, "model" : "N" ,"b":2}'),
    ("a number",         b'{"model":12}',                       b'{"model":"N"}'),
    ("null",             b'{"model":null,"x":[1]}',             b'{"model":"N","x":[1]}'),
    ("also nested",      b'{"t":{"model":"n"},"model":"x"}',  b'{"t":{"model":"n"},"model":"N"}'),
    ("in a string",      b'{"t":"\\"model\\":","model":"x"}', b'{"t":"\\"model\\":","model":"N"}'),
    ("ends like a name", b'{"t":"a \\"model","model":"x"}',     b'{"t":"a \\"model","model":"N"}'),
    ("also a value",     b'{"t":"model","model":"x"}',          b'{"t":"model","model":"N"}'),
    ("escaped",          b'{"mod\\u0065l":"x","t":{"model":1}}',
                         b'{"mod\\u0065l":"N","t":{"model":1}}'),
    ("a quote in it",    b'{"model":"x\\"y"}',                  b'{"model":"N"}'),
    ("big numbers stay", b'{"n":123456789012345678901,"model":"x"}',
                         b'{"n":123456789012345678901,"model":"N"}'),
    ("absent",           b' { "a":1}',                          b' {"model":"N", "a":1}'),
    ("empty",            b"{ }",                                b'{"model":"N" }'),
    ("twice",            b'{"model":"x","a":1,"model":"y"}',    b'{"model":"N","a":1}'),
]
# fmt: on


@pytest.mark.parametrize(("body", "after"), _rows(SPLICED))
def test_only_the_bytes_of_one_member_change(body: bytes, after: bytes) -> None:
    doc = jsonbody.read_object(body)
    assert jsonbody.splice_member(body, doc, "model", b'"N"') == after


def test_strings_are_replaced_where_they_were_read() -> None:
    body = b'{ "n": 1e5, "m":[ {"c":"x\\u00e9"} , {"c" : ["y","z"]}], "c":"x" }'
    after = jsonbody.splice_strings(body, {("m", 0, "c"): 'q"', ("m", 1, "c", 1): "å\ud800"})
    assert after == '{ "n": 1e5, "m":[ {"c":"q\\""} , {"c" : ["y","å\ufffd"]}], "c":"x" }'.encode()


def test_a_string_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BodyFault):
        jsonbody.splice_strings(b'{"a":"x"}', {("b",): "y"})
    with pytest.raises(BodyFault):
        jsonbody.splice_strings(b'{"a":{"b":"x"}}', {("a",): "y", ("a", "b"): "z"})
    with pytest.raises(BodyFault):  # twice: which one was scanned?
        jsonbody.splice_strings(b'{"a":"x","a":"y"}', {("a",): "z"})


def test_events_may_hold_half_a_pair() -> None:
    doc = jsonbody.loads_event(b'{"t":"a\\ud83e"}')
    assert doc == {"t": "a\ud83e"}
    assert jsonbody.dumps_event(doc) == b'{"t":"a\\ud83e"}'
    for bad in (b"{", b"", b"[" * 100_000):
        with pytest.raises(ValueError):  # noqa: PT011
            jsonbody.loads_event(bad)


def test_members_keep_their_bytes() -> None:
    body = b'{"a": 1.50 , "b" :{"c": [1, 2]}}'
    assert jsonbody.top_members(body) == [("a", b"1.50"), ("b", b'{"c": [1, 2]}')]
    assert jsonbody.join_members([("a", b"1.50")]) == b'{"a":1.50}'
