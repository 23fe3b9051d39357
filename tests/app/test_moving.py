"""`parapet store`: what each action writes, says and refuses."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from proxy.app.moving import store
from proxy.model.batch import Append, Batch, Put
from proxy.runtime.clock import SystemClock
from proxy.settings.options import StoreOptions
from proxy.storage.choose import Engine, store_of
from tests.kit.redis import RedisServer, silent


def configured(home: Path, said: str = "sqlite") -> Path:
    home.mkdir(exist_ok=True)
    path = home / "parapet.yaml"
    server = {"state_dir": str(home), "admin_key": "k" * 32}
    path.write_text(json.dumps({"server": server, "store": said}))
    return path


def fill(home: Path, said: str = "sqlite") -> None:
    async def work() -> None:
        engine: Engine = store_of(said, home, SystemClock(), silent)
        await engine.start()
        ops = (Put("policy", "safety", b"{}"), Append("events", b"{}", "evt-1", type="t"))
        await engine.commit("default", Batch("cm-fill", ops))
        await engine.close()

    asyncio.run(work())


def read(home: Path, said: str = "sqlite") -> tuple[int, bytes] | None:
    async def work() -> tuple[int, bytes] | None:
        engine = store_of(said, home, SystemClock(), silent)
        await engine.start()
        try:
            return await engine.get("default", "policy", "safety")
        finally:
            await engine.close()

    return asyncio.run(work())


def done(action: str, config: Path, file: Path, *, replace: bool = False) -> int:
    return store(StoreOptions(action, config, file, replace=replace))


@pytest.mark.redis
def test_a_workspace_moves_by_way_of_a_file(
    tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = configured(tmp_path / "a"), configured(tmp_path / "b", redis.url)
    fill(tmp_path / "a")
    file = tmp_path / "default.jsonl"
    assert done("export", here, file) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert done("import", there, file) == 0
    assert read(tmp_path / "b", redis.url) == (1, b"{}")
    assert done("import", there, file) == 1
    assert done("import", there, file, replace=True) == 0
    back = tmp_path / "back.jsonl"
    assert done("export", there, back) == 0
    assert back.read_bytes() == file.read_bytes()
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == f"workspace default: 3 rows exported to {file}"
    assert lines[2] == (
        "parapet store import: workspace default is not empty; --replace puts the file in its place"
    )


def test_a_backup_opens_as_a_database(tmp_path: Path) -> None:
    config, file = configured(tmp_path / "a"), tmp_path / "b" / "parapet.db"
    fill(tmp_path / "a")
    file.parent.mkdir()
    assert done("backup", config, file) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert read(tmp_path / "b") == (1, b"{}")
    assert [path.name for path in file.parent.glob(".*")] == []


REFUSED = [
    ("export", "there is no workspace"),
    ("import", "is not whole"),
    ("backup", "is not there"),
]


@pytest.mark.parametrize(("action", "said"), REFUSED)
def test_what_is_refused_is_one_line_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, said: str
) -> None:
    config, file = configured(tmp_path / "a"), tmp_path / "x"
    if action == "import":
        file.write_bytes(b'{"format":"parapet-workspace","version":1,"workspace":"default"}\n')
    options = StoreOptions(action, config, file, workspace="other")
    assert store(options) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"parapet store {action}: ")
    assert said in told
    assert told.count("\n") == 1


def test_nothing_is_overwritten_and_a_database_in_use_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, file = configured(tmp_path / "a"), tmp_path / "x"
    fill(tmp_path / "a")
    file.write_text("mine")
    for action in ("export", "backup"):
        assert done(action, config, file) == 1
    assert file.read_text() == "mine"
    file.unlink()
    assert done("export", config, file) == 0

    async def beside() -> tuple[int, int, int]:
        engine = store_of("sqlite", tmp_path / "a", SystemClock(), silent)
        await engine.start()
        try:
            return (
                await asyncio.to_thread(done, "import", config, file, replace=True),
                await asyncio.to_thread(done, "export", config, tmp_path / "y"),
                await asyncio.to_thread(done, "backup", config, tmp_path / "z"),
            )
        finally:
            await engine.close()

    assert asyncio.run(beside()) == (1, 0, 0)
    assert "database in use by pid" in capsys.readouterr().err


def test_redis_has_its_own_backups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path / "a", "redis://127.0.0.1:1/0")
    assert done("backup", config, tmp_path / "x") == 1
    assert done("export", config, tmp_path / "x") == 1
    assert "Redis: " in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
