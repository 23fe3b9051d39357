"""What is not Python travels in the wheel: packs, prices, the dashboard, the typing mark."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = {".yaml", ".json", ".lua", ".html", ".css", ".js", ".svg", ".typed", ".txt"}


@pytest.mark.thorough
def test_the_wheel_holds_all_of_proxy_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "proxy"):
        (source / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (ROOT / "proxy").rglob("*")
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and (path.suffix == ".py" or path.suffix in DATA)
    }
    assert held == expected
    assert {
        "proxy/py.typed",
        "proxy/packs/secrets-core.yaml",
        "proxy/wire/data/prices.json",
    } <= held
