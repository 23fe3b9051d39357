"""`parapet replay`: two versions of a pack over a file of texts."""

import asyncio
import io
import json
import sys
from pathlib import Path

import pytest

from proxy.cli import Entries, run
from tests.kit.services import HttpService

DRAFT = """
policy_pack_id: mine
version: 2.0.0
rules:
  - {rule_id: word, pattern: forbidden, action: block}
  - {rule_id: more, pattern: launch codes, action: redact}
"""
ACTIVE = "policy_pack_id: mine\nrules: [{rule_id: word, pattern: forbidden, action: redact}]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("draft.yaml").write_text(DRAFT)
    Path("active.yaml").write_text(ACTIVE)
    Path("texts.txt").write_text("a forbidden word\n\nnothing\r\nthe launch codes\n")
    return tmp_path


def replay(*arguments: str) -> int:
    def nothing(_: object) -> int:
        raise AssertionError

    return run(["replay", *arguments], Entries(nothing, nothing, nothing, nothing), {})


DEFAULT = ("--candidate", "draft.yaml", "--baseline", "active.yaml")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(*DEFAULT, "texts.txt") == 0
    assert (
        capsys.readouterr().out
        == """\
mine@2.0.0 against mine@1.0.0
3 texts, 2 changed

rule   before   now   new   gone
more   0        1     1     0
word   1        1     0     0

changed   before              now
line 1    violation, redact   violation, block
line 4    pass                violation, redact
"""
    )


def test_streams_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    stream = ("--direction", "response", "--chunks", "5,1,7")
    assert replay(*DEFAULT, *stream, "texts.txt") == 0
    assert "in pieces: 3 of 3 leave as the whole text does\n" in capsys.readouterr().out
    Path("endless.yaml").write_text(
        "policy_pack_id: e\nrules: [{rule_id: r, pattern: a+b, action: redact}]\n"
    )
    Path("long.txt").write_text("a" * 3000)
    same = ("--candidate", "endless.yaml", "--baseline", "endless.yaml", "--exit-code")
    assert replay(*same, *stream, "long.txt") == 1
    assert "in pieces: 0 of 1 leave as the whole text does\n  differs: line 1\n" in (
        capsys.readouterr().out
    )


def test_another_text_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text(ACTIVE.replace("redact}", "redact, replacement: '***'}"))
    assert replay("--candidate", "other.yaml", "--baseline", "active.yaml", "texts.txt") == 0
    assert "violation, redact, another text\n" in capsys.readouterr().out


def test_only_the_first_changes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("many.txt").write_text("forbidden\n" * 70)
    replay(*DEFAULT, "many.txt")
    out = capsys.readouterr().out
    assert out.endswith("and 20 more: --format json has all\n")
    assert len(out.splitlines()) == 58


@pytest.mark.parametrize("name", ["items.jsonl", "items.ndjson", "items.txt"])
def test_json_lines_and_the_document_of_the_api(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"id": "a", "text": "forbidden", "direction": "response", "chunks": [5, 1, 7]},
        {"text": '{"x":"forbidden"}', "part": "tool_args"},
    ]
    Path(name).write_text("\n".join(map(json.dumps, lines)))
    how = () if name != "items.txt" else ("--items",)
    assert replay(*DEFAULT, *how, "--format", "json", name) == 0
    doc = json.loads(capsys.readouterr().out)
    assert (doc["items"], doc["changed"]) == (2, 2)
    assert doc["by_rule"] == [
        {"rule_id": "word", "baseline_hits": 2, "candidate_hits": 2, "new": 0, "gone": 0}
    ]
    assert [(each["id"], each["stream_equals_whole"]) for each in doc["results"]] == [
        ("a", True), ("line 2", None)
    ]  # fmt: skip


def test_standard_input_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfforbidden\n")))
    assert replay(*DEFAULT, "--exit-code", "-") == 1
    assert "1 text, 1 changed" in capsys.readouterr().out


CONFIG = """
workspaces:
  - id: default
    endpoints: [{id: e, provider: openai}]
    routes: [{id: r, endpoint: e, policy_packs: [mine]}]
    policy_files: [active.yaml]
guard: {hold_max_chars: 4096}
"""


@pytest.mark.parametrize("how", [(), ("-c", "parapet.yaml")])
def test_packs_of_the_configuration(
    how: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("parapet.yaml").write_text(CONFIG)
    Path("child.yaml").write_text("policy_pack_id: child\nextends: mine\nrules: []\n")
    for candidate, baseline in (
        ("draft.yaml", ()),
        ("mine", ("--baseline", "mine@1.0.0")),
        ("child.yaml", ("--baseline", "mine")),
        ("secrets-core", ()),
    ):
        assert replay(*how, "--candidate", candidate, *baseline, "texts.txt") == 0
    assert "secrets-core@1.0.0 against secrets-core@1.0.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--candidate", "nobody", "texts.txt"), "nobody is neither a file nor a known policy"),
        (("--candidate", "draft.yaml", "texts.txt"), "no pack mine is known to compare with"),
        (("--candidate", "broken.yaml", "texts.txt"), "broken.yaml: not valid, 1 problem"),
        (("--candidate", "regex.yaml", "texts.txt"), "Look-ahead"),
        ((*DEFAULT, "empty.txt"), "empty.txt holds no text"),
        ((*DEFAULT, "latin.txt"), "latin.txt is not UTF-8: byte 1"),
        ((*DEFAULT, "bad.jsonl"), "bad.jsonl, line 1: must be an object"),
        ((*DEFAULT, "worse.jsonl"), "worse.jsonl, line 1: "),
        ((*DEFAULT, "extra.jsonl"), "extra.jsonl, line 2: nonsense: Extra inputs"),
        ((*DEFAULT, "twice.jsonl"), "twice.jsonl: items.1.id: is there twice"),
        ((*DEFAULT, "-c", "parapet.yaml", "--workspace", "x", "texts.txt"), "no workspace x"),
    ],
)
def test_what_cannot_be_replayed(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.yaml").write_text("policy_pack_id: mine\nrules: 7\n")
    Path("regex.yaml").write_text(
        "policy_pack_id: mine\nrules: [{rule_id: r, kind: regex, pattern: 'a(?=b)'}]\n"
    )
    Path("empty.txt").write_text(" \n\n")
    Path("latin.txt").write_bytes(b"a\xe4")
    Path("bad.jsonl").write_text("7\n")
    Path("worse.jsonl").write_text('{"text":"a","text":"b"}\n')
    Path("extra.jsonl").write_text('{"text":"a"}\n{"text":"a","nonsense":1}\n')
    Path("twice.jsonl").write_text('{"id":"1","text":"a"}\n{"id":"1","text":"b"}\n')
    if "-c" in arguments:
        Path("parapet.yaml").write_text(CONFIG)
    assert replay(*arguments) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


@pytest.mark.parametrize("arguments", [("texts.txt",), (*DEFAULT, "--chunks", "0", "texts.txt")])
def test_a_wrong_command(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stop:
        replay(*arguments)
    assert stop.value.code == 2


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(*DEFAULT, "gone.txt") == 1
    assert "parapet replay: gone.txt: No such file" in capsys.readouterr().err


def test_a_rule_that_asks_a_service_is_said_loudly_not_to_be_replayed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asks = "{rule_id: ask, kind: external, action: block, config: {adapter: http, url: 'http://x'}}"
    Path("asks.yaml").write_text(f"policy_pack_id: mine\nrules: [{asks}]\n")
    assert replay("--candidate", "asks.yaml", "--baseline", "active.yaml", "texts.txt") == 0
    said = "NOT REPLAYED: ask: external, and a replay asks no service; it looks at 3 of the texts"
    assert said in capsys.readouterr().out.splitlines()


ASKS = """
policy_pack_id: mine
rules:
  - {rule_id: word, pattern: forbidden, action: block}
  - rule_id: ask
    kind: external
    action: redact
    config: {adapter: http, url: "URL", allow_private: true, timeout_ms: 5000}
"""


def asking(url: str) -> None:
    Path("asks.yaml").write_text(ASKS.replace("URL", url))


async def test_services_are_asked_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    async with HttpService({"launch": "WEAPON"}) as service:
        asking(service.url)
        wanted = ("--candidate", "asks.yaml", "--baseline", "active.yaml", "--format", "json")
        code = await asyncio.to_thread(replay, *wanted, "--external", "texts.txt")
        assert code == 0
        told = json.loads(capsys.readouterr().out)
        assert service.texts == ["nothing", "the launch codes"]  # what is blocked is sent nowhere
    assert told["not_replayed"] == []
    assert [each["rule_id"] for each in told["by_rule"]] == ["ask", "word"]
    said = {each["id"]: each["candidate"]["action_taken"] for each in told["results"]}
    assert said == {"line 1": "block", "line 3": "none", "line 4": "redact"}


async def test_a_service_that_fails_is_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    async with HttpService() as service:
        service.play(always=b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
        asking(service.url)
        wanted = ("--candidate", "asks.yaml", "--baseline", "active.yaml", "--format", "json")
        await asyncio.to_thread(replay, *wanted, "--external", "texts.txt")
        told = json.loads(capsys.readouterr().out)
    assert told["results"][1]["candidate"] == {"verdict": "error", "action_taken": "block"}


def test_an_endpoint_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    config = "config: {adapter: llama_guard, endpoint: gone}"
    rule = f"{{rule_id: ask, kind: external, action: block, {config}}}"
    Path("asks.yaml").write_text(f"policy_pack_id: mine\nrules: [{rule}]\n")
    wanted = ("--candidate", "asks.yaml", "--baseline", "active.yaml", "--external")
    assert replay(*wanted, "texts.txt") == 2
    assert "asks endpoint gone, which cannot be used" in capsys.readouterr().err
