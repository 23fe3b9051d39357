"""The command line: one function per command, exit codes 0, 1 (failure), 2 (usage, configuration).

A fault is one clear line on stderr, never a stack trace.  What runs is handed in as `Entries`, so
that the parser can be tested without starting anything.  A command imports what it runs when it
runs: each process reads only the half of the code that it needs, and starts in a part of the time.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.cli.grammar import DEFAULT_CONFIG, build_parser
from proxy.settings.options import (
    ControlOptions,
    DemoOptions,
    ReplayOptions,
    ServeOptions,
    StoreOptions,
    WorkerOptions,
)
from proxy.settings.problems import ConfigError
from proxy.settings.secrets import environment, new_key
from proxy.wire import jsonbody


@dataclass(frozen=True, slots=True)
class Entries:
    """What the commands start.  Each returns the exit code."""

    serve: Callable[[ServeOptions], int]
    demo: Callable[[DemoOptions], int]
    control: Callable[[ControlOptions], int]
    worker: Callable[[WorkerOptions], int]


def main() -> int:
    """Run the command of this process's arguments."""
    entries = Entries(serve=_serve, demo=_run_demo, control=_control, worker=_worker)
    return run(sys.argv[1:], entries, environment())


def _serve(options: ServeOptions) -> int:
    from proxy.settings.load import load_config

    loaded = load_config(options.config, insecure=options.insecure)
    if options.single:
        from proxy.app.single import serve_single

        return serve_single(loaded, insecure=options.insecure)
    from proxy.app.serve import serve

    return serve(loaded, insecure=options.insecure)


def _run_demo(options: DemoOptions) -> int:
    from proxy.demo.run import demo

    return demo(options)


def _control(options: ControlOptions) -> int:
    from proxy.app.control_process import run_control

    return run_control(options)


def _worker(options: WorkerOptions) -> int:
    from proxy.app.worker_process import run_worker

    return run_worker(options)


def run(arguments: Sequence[str], entries: Entries, environ: Mapping[str, str]) -> int:
    """Run one command and say how it ended."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        code = _dispatch(options, entries, environ)
        sys.stdout.flush()
    except ConfigError as error:
        from proxy.settings.report import problems_as_text

        _complain(problems_as_text(_file_of(options), error.problems))
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        _complain(f"parapet {options.command}: {what}{error.strerror or error}\n")
        return 1
    return code


def _dispatch(options: argparse.Namespace, entries: Entries, environ: Mapping[str, str]) -> int:
    match options.command:
        case "serve":
            return entries.serve(ServeOptions(options.config, options.single, options.insecure))
        case "demo":
            return entries.demo(DemoOptions(options.port, options.control_port, options.self_test))
        case "check":
            return check(options, environ)
        case "init":
            return init(options.output, environ)
        case "keys":
            return create_key(options)
        case "replay":
            from proxy.app.replaying import replay

            return replay(_replay_options(options))
        case "store":
            from proxy.app.moving import store

            return store(_store_options(options))
        case "_control":
            return entries.control(
                ControlOptions(
                    options.config, options.insecure, options.listen_fd, options.alive_fd
                )
            )
        case "_worker":
            return entries.worker(
                WorkerOptions(options.slot, options.state_dir, options.listen_fd, options.alive_fd)
            )
        case _:
            from proxy.app.version import told

            print(f"parapet {told()}")
            return 0


def check(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Validate a file and print what it does."""
    from proxy.settings.check import as_json, problems_as_json, report_on
    from proxy.settings.load import load_config
    from proxy.settings.report import as_text

    try:
        loaded = load_config(options.config, environ, insecure=options.insecure)
    except ConfigError as error:
        if options.format == "json":
            print(problems_as_json(str(options.config), error.problems).decode())
            return 2
        raise
    report = report_on(loaded)
    print(as_json(report).decode() if options.format == "json" else as_text(report), end="")
    if options.strict and report.holes:
        _complain("".join(f"not guarded: {hole}\n" for hole in report.holes))
        return 1
    return 0


def init(output: Path, environ: Mapping[str, str]) -> int:
    """Write a first configuration; an existing file is never touched."""
    from proxy.settings.starter import find_providers, starter

    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(starter(environ))
    except FileExistsError:
        _complain(f"parapet init: {output} exists; it is not overwritten\n")
        return 1
    found = ", ".join(each.id for each in find_providers(environ)) or "none"
    print(f"{output} written; provider keys found: {found}")
    print(f"next: parapet check -c {output}, then parapet serve -c {output}")
    return 0


def create_key(options: argparse.Namespace) -> int:
    """Print a new key, once, and the line that the configuration keeps of it."""
    key_id, key = new_key()
    digest = hashlib.sha256(key.rpartition("_")[2].encode()).hexdigest()
    members = [f"id: {key_id}", f"secret_sha256: {digest}", f"role: {options.role}"]
    if options.route:
        members.append(f"route: {options.route}")
    if options.name:
        members.append(f"name: {jsonbody.dumps(options.name).decode()}")
    print(key)
    print("\nThis key is shown once.  The configuration keeps only its hash; put this line under")
    print("`keys:` of the workspace:\n")
    print(f"      - {{{', '.join(members)}}}")
    return 0


def _replay_options(options: argparse.Namespace) -> ReplayOptions:
    config = options.config
    if config is None and DEFAULT_CONFIG.is_file():
        config = DEFAULT_CONFIG
    return ReplayOptions(
        texts=options.texts,
        candidate=options.candidate,
        baseline=options.baseline,
        config=config,
        workspace=options.workspace,
        items=options.items,
        direction=options.direction,
        part=options.part,
        chunks=options.chunks,
        format=options.format,
        exit_code=options.exit_code,
        external=options.external,
    )


def _store_options(options: argparse.Namespace) -> StoreOptions:
    return StoreOptions(
        options.action,
        options.config,
        options.file,
        getattr(options, "workspace", "default"),
        getattr(options, "idempotency", False),
        getattr(options, "replace", False),
    )


def _file_of(options: argparse.Namespace) -> str:
    return str(getattr(options, "config", "configuration"))


def _complain(text: str) -> None:
    print(text, end="", file=sys.stderr)
