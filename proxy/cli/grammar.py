"""The grammar of the command line: what each command is called, takes and says of itself."""

import argparse
import re
from pathlib import Path
from typing import Protocol, get_args

from proxy.model.documents import SLUG
from proxy.model.exchange import Part

DEFAULT_CONFIG = Path("parapet.yaml")
ROLES = ("app", "viewer", "operator", "admin", "ingest")
_HIDDEN = ("_control", "_worker")


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = argparse.ArgumentParser(
        prog="parapet",
        description="LLM routing reverse proxy with inline guardrails.",
        epilog="example: parapet demo",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    serving = _command(commands, "serve", "run the proxy", "parapet serve -c parapet.yaml")
    _config(serving)
    serving.add_argument("--single", action="store_true", help="one process for both halves")
    _insecure(serving)
    _demo(commands)
    checking = _command(commands, "check", "validate a configuration; print what it guards",
                        "parapet check -c parapet.yaml --strict")  # fmt: skip
    _config(checking)
    hole = "exit 1 when a guarded route has a hole that no setting names"
    checking.add_argument("--strict", action="store_true", help=hole)
    checking.add_argument("--format", choices=("text", "json"), default="text")
    _insecure(checking)
    starting = _command(commands, "init", "write a configuration from the keys in the environment",
                        "OPENAI_API_KEY=… parapet init -o parapet.yaml")  # fmt: skip
    starting.add_argument("-o", "--output", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    _keys(commands)
    _store(commands)
    _replay(commands)
    _command(commands, "version", "print the version", "parapet version")
    _processes(commands)
    return parser


class Commands(Protocol):
    """What argparse returns from `add_subparsers`."""

    def add_parser(
        self,
        name: str,
        *,
        help: str = ...,  # noqa: A002 - argparse's own name
        description: str = ...,
        epilog: str = ...,
    ) -> argparse.ArgumentParser: ...


def _command(commands: Commands, name: str, does: str, example: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=does, description=f"{does[0].upper()}{does[1:]}.", epilog=f"example: {example}"
    )


def _demo(commands: Commands) -> None:
    does = "run with two built-in fake providers; no key needed"
    demo = _command(commands, "demo", does, "parapet demo --self-test")
    demo.add_argument("--port", type=_port, default=8080, help="of the data plane (default: 8080)")
    demo.add_argument("--control-port", type=_port, default=8081, metavar="PORT",
                      help="of the control API (default: 8081)")  # fmt: skip
    demo.add_argument("--self-test", action="store_true", help="play the story once and end")


def _keys(commands: Commands) -> None:
    keys = _command(commands, "keys", "make keys for callers", "parapet keys create --role app")
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    example = "parapet keys create --role app --route prod-chat --name billing"
    create = _command(actions, "create", "print a new key and the line to keep", example)
    create.add_argument("--role", choices=ROLES, default="app")
    create.add_argument("--route", type=_slug, metavar="ID", help="the only route it may use")
    create.add_argument(
        "--name", type=_name, metavar="TEXT", help="for people; at most 100 letters"
    )


def _store(commands: Commands) -> None:
    does = "move a workspace between stores, or back up the database"
    store = _command(commands, "store", does, "parapet store export workspace.jsonl")
    actions = store.add_subparsers(dest="action", metavar="ACTION", required=True)
    out = _action(
        actions, "export", "write a workspace to a file; of one moment only while nobody writes",
        "parapet store export -c parapet.yaml --workspace default default.jsonl",
    )  # fmt: skip
    out.add_argument("--workspace", default="default", metavar="ID", help="(default: default)")
    out.add_argument("--idempotency", action="store_true", help="finished requests' records, too")
    back = _action(
        actions, "import", "read a workspace from a file, whole or not at all; stop parapet before",
        "parapet store import -c parapet.yaml default.jsonl",
    )  # fmt: skip
    back.add_argument("--replace", action="store_true", help="what the workspace has now goes")
    _action(
        actions, "backup", "copy the SQLite database to a file, also while parapet runs",
        "parapet store backup -c parapet.yaml parapet-backup.db",
    )  # fmt: skip


def _replay(commands: Commands) -> None:
    does = "judge a file of texts by another version of a pack; print what would change"
    replaying = _command(commands, "replay", does, _REPLAYS)
    replaying.formatter_class = argparse.RawDescriptionHelpFormatter
    add = replaying.add_argument
    add("texts", type=Path, metavar="TEXTS",
        help="a text on each line, or (.jsonl) an object with id, text, direction, part, chunks; "
        "- reads standard input")  # fmt: skip
    add("--candidate", required=True, metavar="PACK", help="a file, or the id of a known pack")
    add("--baseline", metavar="PACK", help="compare with it (default: the pack of the same id)")
    add("-c", "--config", type=Path, metavar="FILE",
        help="where packs are known from, beside the shipped ones (default: parapet.yaml, if it "
        "is there)")  # fmt: skip
    add("--workspace", default="default", metavar="ID", help="whose packs (default: default)")
    add("--items", action="store_true", help="each line is an object")
    add("--direction", choices=("request", "response"), default="request",
        help="of texts that do not say theirs (default: request)")  # fmt: skip
    add("--part", choices=get_args(Part), default="text", help="the same (default: text)")
    add("--chunks", type=_sizes, default=(), metavar="N,N…",
        help="sizes of the pieces in which answers come, in characters")  # fmt: skip
    add("--format", choices=("text", "json"), default="text")
    add("--exit-code", action="store_true", help="exit 1 when a text changes or a stream differs")
    add(
        "--external",
        action="store_true",
        help="ask the services that rules of kind external name: the texts are sent to them",
    )


_REPLAYS = """parapet replay --candidate draft.yaml texts.txt
         parapet replay -c parapet.yaml --candidate draft.yaml --baseline safety-v2 texts.jsonl
         parapet replay --candidate secrets-core --direction response --chunks 5,1,7 texts.txt
         parapet replay --candidate draft.yaml --format json --exit-code texts.jsonl"""


def _sizes(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if not all(each.isascii() and each.isdigit() and 0 < int(each) < 1 << 31 for each in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of sizes like 5,1,7")
    return tuple(map(int, sizes))


def _action(actions: Commands, name: str, does: str, example: str) -> argparse.ArgumentParser:
    action = _command(actions, name, does, example)
    _config(action)
    action.add_argument("file", type=Path, metavar="FILE")
    return action


def _processes(commands: Commands) -> None:
    """The entries that the supervisor starts; not shown in the help."""
    control, worker = (commands.add_parser(name) for name in _HIDDEN)
    _config(control)
    _insecure(control)
    worker.add_argument("--slot", type=int, required=True)
    worker.add_argument("--state-dir", type=Path, required=True)
    for parser in (control, worker):
        parser.add_argument("--listen-fd", type=int, required=True)
        parser.add_argument("--alive-fd", type=int, required=True)


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE",
                        help="the configuration file (default: parapet.yaml)")  # fmt: skip


def _insecure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--insecure", action="store_true",
                        help="allow a reachable listener without keys")  # fmt: skip


def _slug(text: str) -> str:
    if not re.fullmatch(SLUG, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an id (a-z, 0-9, '.', '_', '-')")
    return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _name(text: str) -> str:
    if not 1 <= len(text) <= 100:
        raise argparse.ArgumentTypeError("must have 1 to 100 letters")
    return text
