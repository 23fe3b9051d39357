"""What `proxy/` imports is declared; what is declared is imported; the lock pins it all."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
DISTRIBUTION = {"yaml": "pyyaml", "re2": "google-re2", "prometheus_client": "prometheus-client"}
COMES_WITH = {"pydantic_core": "pydantic", "multidict": "aiohttp", "yarl": "aiohttp"}


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def imported() -> set[str]:
    """Top-level packages that the sources import, our own and the standard library aside."""
    found: set[str] = set()
    for path in (ROOT / "proxy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"proxy"}


def test_what_is_imported_is_declared() -> None:
    declared = {name_of(each) for each in PROJECT["dependencies"]}
    named = {COMES_WITH.get(each) or DISTRIBUTION.get(each, each) for each in imported()}
    assert named - declared == set()


def test_what_is_declared_is_locked_with_hashes() -> None:
    extras = PROJECT["optional-dependencies"].values()
    declared = {name_of(each) for each in PROJECT["dependencies"]}
    declared |= {name_of(each) for group in extras for each in group}
    pinned = {name_of(each) for each in re.findall(r"^\S+==", LOCK, re.MULTILINE)}
    assert declared - pinned == set()
    entries = re.findall(r"^\S+==.*$(?:\n    --hash=sha256:[0-9a-f]{64}.*$)+", LOCK, re.MULTILINE)
    assert len(entries) == len(pinned)


def test_the_run_part_of_the_lock_holds_what_the_proxy_needs() -> None:
    run = LOCK.partition("# --- dev")[0]
    for requirement in [*PROJECT["dependencies"], "setuptools"]:
        assert re.search(rf"^{name_of(requirement)}==", run, re.MULTILINE | re.IGNORECASE)


def test_the_lock_names_no_host() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^--?(index|extra|find|trusted|i|f)", LOCK, re.MULTILINE)
