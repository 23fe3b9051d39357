"""400 lines a file, 50 statements a function; what is larger is listed, with the reason."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIZES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["parapet"]["sizes"]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def oversized() -> Iterator[str]:
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        source, name = path.read_text(), path.relative_to(ROOT).as_posix()
        if source.count("\n") > SIZES["file_lines"]:
            yield name
        found: list[str] = []
        statements(ast.parse(source), found)
        yield from (f"{name}::{function}" for function in found)


def statements(node: ast.AST, oversized: list[str]) -> int:
    """How many are inside; what is too large is added to `oversized`."""
    inside = [child for block in BLOCKS for child in getattr(node, block, ())]
    count = sum(isinstance(child, ast.stmt) + statements(child, oversized) for child in inside)
    if isinstance(node, FUNCTIONS) and count > SIZES["function_statements"]:
        oversized.append(node.name)
    return count


def test_what_is_inside_of_what_is_inside_counts() -> None:
    body = "\n".join("        x = 1" for _ in range(SIZES["function_statements"]))
    source = f"class A:\n  def a(self):\n    if x:\n{body}\n  def b(self): pass"
    found: list[str] = []
    statements(ast.parse(source), found)
    assert found == ["a"]


def test_what_is_oversized_is_listed_and_nothing_else() -> None:
    assert set(oversized()) == set(SIZES["exceptions"])


def test_every_exception_has_its_reason() -> None:
    assert all(len(reason) > 20 for reason in SIZES["exceptions"].values())
