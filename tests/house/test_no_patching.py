"""Fakes come in through ports: no test replaces a name inside our own modules."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PATCHERS = {"setattr", "delattr", "setitem", "delitem", "patch", "object"}
SUSPECT = re.compile(rf"\.({'|'.join(PATCHERS)})\(")  # few are worth to be parsed


def ours(tree: ast.Module) -> set[str]:
    """Names of a test module that come from our package."""
    names = {"proxy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "proxy":
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {
                alias.asname
                for alias in node.names
                if alias.asname and alias.name.startswith("proxy.")
            }
    return names


def patches(tree: ast.Module) -> Iterator[int]:
    names = ours(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr not in PATCHERS:
            continue
        target = node.args[0]
        if isinstance(target, ast.Constant) and str(target.value).split(".")[0] == "proxy":
            yield node.lineno
        while isinstance(target, ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name) and target.id in names:
            yield node.lineno


def test_nobody_patches_our_modules() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        if SUSPECT.search(source := path.read_text())
        for line in patches(ast.parse(source))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import proxy.app\nm.setattr(proxy.app, 'serve', 1)", True),
        ("from proxy.app import serve as s\nm.setattr(s.inner, 'x', 1)", True),
        ("import proxy.app as a\nm.delattr(a, 'serve')", True),
        ("m.setattr('proxy.app.serve', 1)", True),
        ("m.setattr('os.getcwd', 1)", False),
        ("m.setenv('PARAPET_X', '1')", False),
    ],
)
def test_the_check_itself(source: str, caught: bool) -> None:
    assert bool(list(patches(ast.parse(source)))) is caught
