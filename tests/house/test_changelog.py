"""Deprecations are announced in CHANGELOG.md, in the words that the API contract promises."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from pydantic import BaseModel

import proxy

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
FORM = re.compile(r"DEPRECATED: Use \S+ instead\. Will be removed in v\d+\.\d+\.\d+")
HEADINGS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def documents() -> set[type[BaseModel]]:
    """Every document type of the package."""
    found: set[type[BaseModel]] = set()
    for module in walk_packages(proxy.__path__, "proxy."):
        if not module.name.endswith("__main__"):
            values = vars(import_module(module.name)).values()
            found |= {each for each in values if isinstance(each, type)
                      and issubclass(each, BaseModel)}  # fmt: skip
    return found


def test_every_deprecated_member_is_announced() -> None:
    announced = CHANGELOG.read_text()
    for document in documents():
        for name, field in document.model_fields.items():
            if field.deprecated:
                said = FORM.match(field.description or "")
                assert said, f"{document.__name__}.{name}"
                assert f"`{name}`: {said[0]}" in announced


def test_its_form() -> None:
    text = CHANGELOG.read_text()
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= HEADINGS
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert all(FORM.search(line) for line in text.splitlines() if "DEPRECATED" in line)
