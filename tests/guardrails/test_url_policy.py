"""Kind url and its pack: what an address hides, whole and in every cut."""

from pathlib import Path

import pytest
import yaml

import proxy
from proxy.guardrails.checks.address import readings
from proxy.guardrails.compile import check_pack, compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.samples import WARM
from proxy.model.exchange import Leaf, Part
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import pack

FILE = Path(proxy.__file__).parent / "packs" / "url-policy.yaml"
PACK = PolicyPack.model_validate(yaml.safe_load(FILE.read_text()))
GUARD = compile_guard([PACK], GuardSettings())
DATA = "a" * 100
SIZES = (1, 2, 3, 5, 7, 64, 1_000_000)


def judged(text: str, guard: Guard = GUARD, part: Part = "text") -> str:
    found = guard.judge([Leaf(text, part, "assistant", ())], "response")
    return found.rewrites[0][1] if found.rewrites else text


def streamed(text: str, size: int, guard: Guard = GUARD) -> tuple[str, int]:
    """What leaves, and how often the lane gave up waiting."""
    lane = guard.lane("text")
    assert lane is not None
    pieces = [lane.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join([*pieces, lane.finish()]), len(lane.overflows)


def both(text: str, guard: Guard = GUARD) -> str:
    """The same whole and in every cut, without giving up."""
    told = judged(text, guard)
    for size in SIZES:
        assert streamed(text, size, guard) == (told, 0), size
    return told


def seen(text: str) -> set[str]:
    found = GUARD.judge([Leaf(text, "text", "assistant", ())], "response")
    return {str(result.rule_matched) for result in found.results}


def own(**config: object) -> Guard:
    """A guard of one rule that redacts."""
    rule = {"kind": "url", "action": "redact", "config": config}
    return compile_guard([pack(rule)], GuardSettings())


def test_it_compiles_without_a_word() -> None:
    assert check_pack(PACK) == ([], [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"![x](https://e.example/p?d={DATA})",              "[URL]"),
        (f"see ![x](https://e.example/p?d={DATA}) there",    "see [URL] there"),
        (f"![x](https://e.example/{DATA * 30}) end",         "[URL] end"),
        (f"![x](https://e.example/{DATA * 30}",              "[URL]"),
        (f"![x](http://e.example?{DATA})",                   "[URL]"),
        (f'![x](https://e.example/{DATA} "title") z',        "[URL] z"),
        (f"![x](<https://e.example/{DATA}>) z",              "[URL] z"),
        (f"![x](https://e.example/(a)({DATA})) z",           "[URL] z"),
        (f"![x](https://e.example/?{'a.' * 90}) z",          "[URL] z"),
        (f"![a\\]b](https://e.example/{DATA}) z",            "[URL] z"),
        (f"![a [b] c](https://e.example/{DATA}) z",          "[URL] z"),
        (f"![two\nlines](\nhttps://e.example/{DATA}) z",     "[URL] z"),
        (f"![x](HTTPS://e.example/{DATA}) z",                "[URL] z"),
        (f"![x](//e.example/{DATA}) z",                      "[URL] z"),
        (f"![x](\\\\e.example/{DATA}) z",                    "[URL] z"),
        (f"![x](https&colon;//e.example/{DATA}) z",          "[URL] z"),
        (f"![x](&#104;ttps://e.example/{DATA}) z",           "[URL] z"),
        (f"![x](https\\://e.example/{DATA}) z",              "[URL] z"),
        (f"[![x](https://e.example/{DATA})](https://b.example)", "[[URL]](https://b.example)"),
        (f"![x][r]\n\n[r]: https://e.example/?d={DATA}\nend", "![x][r]\n\n[URL]\nend"),
        (f'<img alt="" src="https://e.example/{DATA * 9}" width=1> z', "[URL] width=1> z"),
        (f"<IMG SRC='https://e.example/{DATA}'> z",          "[URL]> z"),
        (f"<img src=https://e.example/{DATA}> z",            "[URL]> z"),
        (f'<img src="https://e.example/{"a&#97;" * 40}"> z', "[URL]> z"),
        ("https://good.example@evil.test/ x",                "[URL] x"),
        ("https://good.example%2f@evil.test/ x",             "[URL] x"),
        ("(https://a:b@c.example/d), then",                  "([URL]), then"),
        ("[in](https://good.example\\@evil.test/)",          "[in]([URL])"),
        ("[in](https://good.example&#64;evil.test/)",        "[in]([URL])"),
        ("[in](//good.example@evil.test/)",                  "[in]([URL])"),
        ("https://user@[2001:db8::1]:80/x y",                "[URL] y"),
        ("https:\\\\good.example@evil.test/ y",              "[URL] y"),
        ("[a](javascript:alert(1)) b",                       "[a]([URL]) b"),
        ("[a](JavaScript:run) b",                            "[a]([URL]) b"),
        ('<a href="java\nscript:run(1)">',                   '<a href="[URL]">'),
        ('<a href="&#106;avascript:run(1)">',                '<a href="[URL]">'),
        ("javascript:alert(document.cookie)",                "[URL]"),
        ("javascript://%0aalert`1`",                         "[URL]"),
    ],
)  # fmt: skip
def test_what_is_redacted(text: str, told: str) -> None:
    assert both(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "![logo](https://e.example/l.png)",
        f"![x](https://e.example/{'a' * 63})",
        f"![x](/images/{DATA}.png) ![y](images/{DATA}.png)",
        f"![x](data:image/png;base64,{DATA * 30})",
        f"![x](https://e.example/l.png#{DATA})",
        f"[x](https://e.example/?d={DATA})",
        f"[1]: https://e.example/{DATA} and [^1]: https://e.example/?{DATA}",
        f"let rows = vec![vec![{'0.125, ' * 200}], vec![1.0]]; if !a[0] {{ [{'1, ' * 400}] }}",
        f"{'0.125,' * 300}]: x [{'0.125,' * 300}]",
        "https://good.example/@user https://good.example?mail=jane@good.example",
        "https://good.example, jane@good.example; git@good.example:team/a.git",
        "https:\\/\\/good.example\\/@user",
        "\u5b98\u7f51\uff1ahttps://good.example\uff0c\u90ae\u7bb1\uff1asupport@good.example",
        "https://{user}:{password}@good.example/ is a template",
        "JavaScript: The Good Parts, javascript:S1234, {javascript:true}",
        '<a href="javascript:void(0)">top</a> <a href="javascript:;">',
        *WARM,
    ],
)  # fmt: skip
def test_what_stays(text: str) -> None:
    assert both(text) == text


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("http://192.0.2.7/a",                    {"host.number"}),
        ("http://0300.0.2.7/a",                   {"host.number"}),
        ("http://0xc0.0x2.7/a",                   {"host.number"}),
        ("http://3221225991/a",                   {"host.number"}),
        ("http://192.0.2.7./a",                   {"host.number"}),
        ("http://[::ffff:192.0.2.7]:80/a",        {"host.number"}),
        ("http://\uff11\uff19\uff12.0.2.7/a",     {"host.number"}),
        ("https://xn--80ak6aa92e.example/",       {"host.international"}),
        ("https://\u0430pple.example/",           {"host.international"}),
        ("www.xn--80ak6aa92e.example",            {"host.international"}),
        ("https://good.example\\.evil.test/",     {"host.malformed"}),
        ("https://good\x00.example/",             {"host.malformed"}),
        ("https://good\x7f.example/",             {"host.malformed"}),
        ("https://%67ood.example/",               {"host.malformed"}),
        ("file:///etc/passwd",                    {"scheme.other"}),
        ("FTP://archive.example/pub",             {"scheme.other"}),
        ("data:text/html,<b>",                    {"scheme.other"}),
        (f"https://e.example/?{'a' * 257}",       {"query.long"}),
        ("https://good.example/",                 set()),
        ("https://v2.good.example:8443/1.2.3.4",  set()),
        ("profile: x, data: y, file: z, www.",    set()),
    ],
)  # fmt: skip
def test_what_is_told(text: str, rules: set[str]) -> None:
    assert seen(text) == rules
    assert both(text) == text


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("https://good.example/",                     True),
        ("https://GOOD.example.:8080/x",              True),
        ("https://a.b.good.example/x?y#z",            True),
        ("(see https://good.example).",               True),
        ("www.good.example, ok",                      True),
        ("https://good.example\u3002\u6b21",          True),
        ("https://b\u00fccher.example/",              True),
        ("https://xn--bcher-kva.example/",            True),
        ("mailto:jane@evil.test and /path and x.y",   True),
        ("https://good.example.evil.test/",           False),
        ("https://notgood.example/",                  False),
        ("https://evil.test/good.example",            False),
        ("https://evil.test?good.example",            False),
        ("https://evil.test#good.example",            False),
        ("https://evil.test\\.good.example/",         False),
        ("https://good.example@evil.test/",           False),
        ("https://evil.test\\@good.example/",         False),
        ("https://good.example&#46;evil.test/",       False),
        ("https://ev%69l.test/",                      False),
        ("https://ev\u200bil.test/",                  False),
        ("https://\uff45vil.test/",                   False),
        ("https://evil\uff0etest/",                   False),
        ("http:/\\evil.test/",                        False),
        ("https:///evil.test/",                       False),
        ("https://",                                  False),
        ("https://\u4f8b.test/x",                     False),
        ("[x](//evil.test/a)",                        False),
        ("[x](\\/evil.test/a)",                       False),
        ("[x](&#47;/evil.test/a)",                    False),
        ("<a href='//evil.test/a'>",                  False),
    ],
)  # fmt: skip
def test_domains_are_compared_label_by_label(text: str, allowed: bool) -> None:
    guard = own(checks=["domain"], allow_domains=["good.example", "*.b\u00fccher.example"])
    assert (both(text, guard) == text) is allowed


def test_a_denied_domain_is_denied_in_every_spelling() -> None:
    guard = own(checks=["domain"], deny_domains=["evil.test", "xn--r8jz45g.test"])
    for text in (
        "https://evil.test/", "http://a.EVIL.test./", "https://x@evil.test", "www.evil.test",
        "https://good.example\\@evil.test", "https://evil.test\\@good.example",
        "https://%65vil.test/", "https://\u4f8b\u3048.test/",
    ):  # fmt: skip
        assert "[URL]" in both(text, guard), text
    for text in ("https://good.example/evil.test", "https://notevil.test/", "evil.test"):
        assert both(text, guard) == text


def test_images_of_ones_own_hosts_pass_however_long() -> None:
    guard = own(checks=["image"], images={"allow_domains": ["img.example"], "max_data_chars": 8})
    mine = f"![x](https://a.img.example/{DATA * 30}?{DATA}) end"
    assert both(mine, guard) == mine
    for host in ("img.example.evil.test", "notimg.example", "evil.test\\.img.example"):
        assert both(f"![x](https://{host}/{DATA * 30}) end", guard) == "[URL] end"
    assert both("![x](https://e.example/123456789)", guard) == "[URL]"
    assert both("![x](https://e.example/1234567)", guard) == "![x](https://e.example/1234567)"


def test_all_checks_together_are_the_default() -> None:
    guard = own()
    plain = f"https://good.example/{DATA * 2} and ![x](https://good.example/l.png), [y](/z)"
    assert both(plain, guard) == plain
    for text in (
        "http://192.0.2.7/", "https://a@b.example/", "ftp://a.example/", "https://xn--a.example/",
        f"https://e.example/?{DATA * 3}", f"![x](https://e.example/{DATA})",
        "![x](http://192.0.2.7/l.png)", "[x](javascript:y)", "data:text/html,x", "file:///x",
    ):  # fmt: skip
        assert "[URL]" in both(text, guard), text


def test_what_may_be_allowed() -> None:
    lax = own(userinfo="allow", ip_literals="allow", punycode="allow", schemes=["https", "ftp"])
    for text in (
        "https://a@b.example/",
        "https://192.0.2.7/",
        "https://xn--a.example/",
        "ftp://a/",
    ):
        assert both(text, lax) == text
    assert both("http://a.example/", lax) == "[URL]"
    assert both("https://xn--a.example/", own(punycode="flag")) == "https://xn--a.example/"
    rule = {"kind": "url", "action": "flag", "config": {"punycode": "flag"}}
    flags = compile_guard([pack(rule)], GuardSettings())
    leaf = Leaf("https://xn--a.example/", "text", "assistant", ())
    assert flags.judge([leaf], "response").flagged


def test_a_long_address_is_redacted_before_it_ends() -> None:
    lane = GUARD.lane("text")
    assert lane is not None
    out = lane.feed("so ![x](https://e.example/")
    most = 0
    for _ in range(400):
        out += lane.feed("secret")
        most = max(most, len(out))
    assert out == "so [URL]"
    assert lane.feed(") end") + lane.finish() == " end"


def test_a_block_falls_in_a_stream_where_it_does_in_the_whole() -> None:
    rule = {"kind": "url", "action": "block", "config": {"checks": ["userinfo"]}}
    guard = compile_guard([pack(rule)], GuardSettings())
    text = "go to https://good.example@evil.test/ now"
    whole = guard.judge([Leaf(text, "text", "assistant", ())], "response")
    assert whole.block is not None
    for size in SIZES:
        lane = guard.lane("text")
        assert lane is not None
        out = "".join(lane.feed(text[at : at + size]) for at in range(0, len(text), size))
        assert out + lane.finish() == "go to "
        assert lane.blocked is not None


@pytest.mark.parametrize("part", ["tool_args", "tool_result", "metadata"])
def test_what_is_not_shown_to_a_reader_is_let_alone(part: Part) -> None:
    text = f"![x](https://e.example/{DATA})"
    assert judged(text, part=part) == text


@pytest.mark.parametrize(
    ("config", "member"),
    [
        ({"checks": []}, "config.checks"),
        ({"checks": ["colour"]}, "config.checks[0]"),
        ({"schemes": ["gopher"]}, "config.schemes[0]"),
        ({"allow_domains": ["https://good.example"]}, "config.allow_domains[0]"),
        ({"allow_domains": ["good.*.example"]}, "config.allow_domains[0]"),
        ({"deny_domains": ["a b"]}, "config.deny_domains[0]"),
        ({"userinfo": "flag"}, "config.userinfo"),
        ({"max_query_chars": -1}, "config.max_query_chars"),
        ({"images": {"hosts": []}}, "config.images.hosts"),
        ({"images": []}, "config.images"),
        ({"checks": ["userinfo"], "userinfo": "allow"}, "config"),
    ],
)  # fmt: skip
def test_a_config_that_is_refused_is_named(config: dict[str, object], member: str) -> None:
    faults, _ = check_pack(pack({"kind": "url", "config": config}))
    assert [fault.field for fault in faults] == [f"rules[0].{member}"]


@pytest.mark.parametrize(
    "more",
    [{"pattern": "x"}, {"group": 1}, {"case": "exact"}, {"fold": "fold"}, {"keywords": ["xy"]}],
)
def test_it_takes_no_pattern(more: dict[str, object]) -> None:
    faults, _ = check_pack(pack({"kind": "url", **more}))
    assert [(fault.field, fault.code) for fault in faults] == [
        (f"rules[0].{next(iter(more))}", "extra_forbidden")
    ]


def test_an_exemption_by_address_is_refused() -> None:
    faults, _ = check_pack(pack({"kind": "url", "action": "allow"}))
    assert [fault.code for fault in faults] == ["action_not_possible"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "text",
    [
        "https://[", "https://[[[]]]/", "https://@@@@", "https://:::", "https://a:99999999999999/",
        "https://" + "a." * 5_000, "https://" + "xn--" * 2_000 + "/", "https://%%%%/", "http:\\",
        "https://&#x110000;&#0;/", "//", "![](", "![](//", "<img src=", "[]: //x", "\\\\\x00",
        "https://\ud800/", "https://\u0130\u1e9e.test/", "javascript:" + "(" * 9_000,
    ],
)  # fmt: skip
def test_hostile_addresses_break_nothing(text: str) -> None:
    readings(text)
    guard = own(allow_domains=["good.example"])
    found = guard.judge([Leaf(text, "text", "assistant", ())], "response")
    assert all(result.verdict == "violation" for result in found.results)
    if "\ud800" not in text:
        assert len({streamed(text, size, guard) for size in SIZES}) == 1
