"""400 lines a file, 50 statements a function; what is larger is listed, with the reason."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIZES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["parapet"]["sizes"]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def oversized() -> Iterator[str]:
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        source, name = path.read_text(), path.relative_to(ROOT).as_posix()
        if source.count("\n") > SIZES["file_lines"]:
            yield name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, FUNCTIONS):
                statements = sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1
                if statements > SIZES["function_statements"]:
                    yield f"{name}::{node.name}"


def test_what_is_oversized_is_listed_and_nothing_else() -> None:
    assert set(oversized()) == set(SIZES["exceptions"])


def test_every_exception_has_its_reason() -> None:
    assert all(len(reason) > 20 for reason in SIZES["exceptions"].values())
