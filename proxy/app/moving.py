"""`parapet store`: a workspace out of the store of a configuration, into it, and a backup."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.model.events import SERVER_WORKSPACE
from proxy.runtime.clock import SystemClock
from proxy.settings.files import replacing
from proxy.settings.load import Loaded, load_config
from proxy.settings.options import StoreOptions
from proxy.storage.choose import DATABASE, SQLITE
from proxy.storage.moving import Movable, MovingFault, check_file, read_file, write_file
from proxy.storage.redis.moving import RedisServerAt
from proxy.storage.sqlite.moving import SqliteFile

_DONE: Final = {"export": "exported", "import": "imported"}


def store(options: StoreOptions) -> int:
    """Raises ConfigError (exit 2), OSError."""
    loaded = load_config(options.config, insecure=True)
    try:
        match options.action:
            case "export":
                _export(loaded, options)
            case "import":
                _import(loaded, options)
            case _:
                _backup(loaded, options.file)
    except MovingFault as why:
        _tell(f"parapet store {options.action}: {why}")
        return 1
    return 0


def _export(loaded: Loaded, options: StoreOptions) -> None:
    _must_be_new(options.file)
    known = {workspace.id for workspace in loaded.config.workspaces} | {SERVER_WORKSPACE}
    if options.workspace not in known:
        raise MovingFault(f"there is no workspace {options.workspace} in {options.config}")
    rows = _engine(loaded).dump(options.workspace, records=options.records)
    with replacing(options.file) as file:
        count = write_file(file, options.workspace, rows, _progress(options.action))
    _tell(f"workspace {options.workspace}: {count} rows exported to {options.file}")


def _import(loaded: Loaded, options: StoreOptions) -> None:
    workspace_id, count = check_file(options.file)
    rows = read_file(options.file, _progress(options.action))
    _engine(loaded).load(workspace_id, rows, replace=options.replace)
    _tell(f"workspace {workspace_id}: {count} rows imported from {options.file}")


def _backup(loaded: Loaded, file: Path) -> None:
    _must_be_new(file)
    engine = _engine(loaded)
    if not isinstance(engine, SqliteFile):
        raise MovingFault("only of SQLite; copy the files of Redis, or export its workspaces")
    beside = file.with_name(f".{file.name}.part")
    beside.unlink(missing_ok=True)
    try:
        engine.copy_to(beside)
        beside.chmod(0o600)
        beside.rename(file)
    finally:
        beside.unlink(missing_ok=True)
    _tell(f"{file}: {file.stat().st_size} bytes")


def _engine(loaded: Loaded) -> Movable:
    said = loaded.reader.value(loaded.config.store)
    clock = SystemClock()
    if said == SQLITE:
        return SqliteFile(Path(loaded.config.server.state_dir) / DATABASE, clock)
    return RedisServerAt(said, clock)


def _must_be_new(file: Path) -> None:
    if file.exists():
        raise MovingFault(f"{file} exists; it is not overwritten")


def _progress(action: str) -> Callable[[int], None]:
    """A line now and then."""
    return lambda rows: _tell(f"{rows} rows {_DONE[action]} …")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
