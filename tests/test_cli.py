"""The command line: what each command starts or prints, and how it ends."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.cli import Entries, run
from proxy.settings.load import load_config
from proxy.settings.options import ControlOptions, DemoOptions, ServeOptions, WorkerOptions
from proxy.settings.problems import ConfigError, Problem
from proxy.wire import jsonbody


class Started:
    """Entries that note what they were given, and end with `code` or by raising."""

    def __init__(self, code: int = 0, fault: Exception | None = None) -> None:
        self.given: list[object] = []
        self._code, self._fault = code, fault

    def entries(self) -> Entries:
        def note(options: object) -> int:
            self.given.append(options)
            if self._fault is not None:
                raise self._fault
            return self._code

        return Entries(serve=note, demo=note, control=note, worker=note)


def command(*arguments: str, started: Started | None = None) -> int:
    return run(arguments, (started or Started()).entries(), {"PARAPET_ADMIN_KEY": "k" * 32})


# fmt: off
STARTS: list[tuple[list[str], object]] = [
    (["serve"],                                       ServeOptions(Path("parapet.yaml"))),
    (["serve", "-c", "x.yaml", "--single", "--insecure"],
                                                      ServeOptions(Path("x.yaml"), True, True)),
    (["demo"],                                        DemoOptions()),
    (["demo", "--port", "1", "--control-port", "2", "--self-test"], DemoOptions(1, 2, True)),
    (["_control", "-c", "x", "--listen-fd", "3", "--alive-fd", "4"],
                                                      ControlOptions(Path("x"), False, 3, 4)),
    (["_worker", "--slot", "1", "--state-dir", "v", "--listen-fd", "3", "--alive-fd", "4"],
                                                      WorkerOptions(1, Path("v"), 3, 4)),
]
# fmt: on


@pytest.mark.parametrize(("arguments", "options"), STARTS)
def test_what_is_started(arguments: list[str], options: object) -> None:
    started = Started(code=7)
    assert command(*arguments, started=started) == 7
    assert started.given == [options]


USAGE = [
    ["frobnicate"],
    ["serve", "--port", "1"],
    ["keys"],
    ["keys", "create", "--role", "king"],
    ["keys", "create", "--route", "Not An Id"],
    ["keys", "create", "--name", ""],
    ["demo", "--port", "70000"],
    ["demo", "--port", "x"],
    ["store"],
    ["store", "export"],
    ["store", "burn", "x"],
    ["_worker"],
]


@pytest.mark.parametrize("arguments", USAGE)
def test_wrong_usage_is_2_with_a_line_that_says_so(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_no_command_is_2_and_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 2
    assert "serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve"], ["demo"], ["check"], ["init"], ["keys"], ["keys", "create"], ["version"]],
)
def test_every_command_has_help_with_an_example(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*arguments, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "example: " in text
    assert "_worker" not in text


FAULTS: list[tuple[Exception, int, str]] = [
    (
        ConfigError([Problem(("server",), "is odd", "x.yaml", 3)]),
        2,
        "parapet.yaml: not valid, 1 problem\n  x.yaml:3: server: is odd\n",
    ),
    (PermissionError(13, "Permission denied", "var"), 1, "parapet serve: var: Permission denied\n"),
    (OSError("odd"), 1, "parapet serve: odd\n"),
]


@pytest.mark.parametrize(("fault", "code", "said"), FAULTS)
def test_a_fault_is_a_clear_line(
    fault: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("serve", started=Started(fault=fault)) == code
    assert capsys.readouterr().err == said


# --- check

Write = Callable[[str], str]


@pytest.fixture
def config(tmp_path: Path) -> Write:
    def write(text: str) -> str:
        path = tmp_path / "parapet.yaml"
        path.write_text(text)
        return str(path)

    return write


HOLE = """\
workspaces:
  - id: default
    endpoints: [{id: e, provider: openai}]
    routes: [{id: r, endpoint: e, policy_packs: [p]}]
    policies:
      - {policy_pack_id: p, rules: [{rule_id: r, pattern: "[regulated terms]", action: block}]}
"""


def test_check(config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", "-c", config(HOLE)) == 0
    assert "not scanned: inert rule" in capsys.readouterr().out


def test_check_strict_tells_the_holes(config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", "-c", config(HOLE), "--strict") == 1
    assert "not guarded: route r: request text: inert rule\n" in capsys.readouterr().err
    assert command("check", "-c", config(""), "--strict") == 0


def test_check_of_a_wrong_file(config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", "-c", config("sever: {}")) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "sever: unknown member; did you mean server?" in shown.err


def test_check_for_machines(config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", "-c", config("sever: {}"), "--format", "json") == 2
    document = jsonbody.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    assert document["valid"] is False
    assert document["problems"] == [
        {
            "file": "parapet.yaml",
            "line": 1,
            "path": "sever",
            "message": "unknown member; did you mean server?",
        }
    ]
    assert command("check", "-c", config(""), "--format", "json") == 0
    assert isinstance(jsonbody.loads(capsys.readouterr().out), dict)


def test_check_of_an_exposed_listener(config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = config("server: {listen: 0.0.0.0:8080}")
    assert command("check", "-c", path) == 2
    assert command("check", "-c", path, "--insecure") == 0
    assert "reachable from outside" in capsys.readouterr().err


# --- init, keys, version


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.yaml"
    assert command("init", "-o", str(path)) == 0
    text = path.read_text()
    load_config(path, {})
    assert command("init", "-o", str(path)) == 1
    assert path.read_text() == text
    assert "it is not overwritten" in capsys.readouterr().err
    assert command("init", "-o", str(tmp_path / "none" / "new.yaml")) == 1


def test_a_new_key_and_the_line_to_keep(config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("keys", "create", "--role", "viewer", "--name", 'a "b": #c') == 0
    key, _, *_, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"ppt_[0-9A-Za-z]{12}_[0-9A-Za-z]{40}", key)
    path = Path(config(f"workspaces:\n  - id: default\n    keys:\n{line}\n"))
    (kept,) = load_config(path, {}).config.workspaces[0].keys
    _, key_id, secret = key.split("_")
    assert (kept.id, kept.role, kept.name) == (key_id, "viewer", 'a "b": #c')
    assert kept.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in line


def test_a_key_for_one_route(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("keys", "create", "--route", "prod-chat") == 0
    assert "role: app, route: prod-chat}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("version") == 0
    assert re.fullmatch(r"parapet \d+\.\d+\.\d+\S*( compiled)?\n", capsys.readouterr().out)
