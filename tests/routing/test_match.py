"""Which route serves a model (architecture.md §3, ways 4 and 5)."""

import pytest

from proxy.model.tenancy import Match, Route
from proxy.routing.match import RouteTable


def route(route_id: str, *globs: str) -> Route:
    return Route(id=route_id, endpoint="e", match=Match(models=list(globs)))


TABLE = RouteTable(
    [
        route("prod-chat", "claude*", "gpt-4o"),
        route("opus", "claude-3-opus*"),
        route("embed", "text-embedding-?", "voyage.*"),
        route("exact", "o1"),
    ],
    None,
)

# fmt: off
MODELS = [
    ("opus",                     "opus"),       # a route id
    ("claude-3-opus-20240229",   "prod-chat"),  # the first glob in file order
    ("gpt-4o",                   "prod-chat"),
    ("gpt-4o-mini",              None),
    ("text-embedding-3",         "embed"),
    ("text-embedding-33",        None),
    ("voyage.2",                 "embed"),
    ("voyageX2",                 None),         # a dot is a dot
    ("o1",                       "exact"),
    ("",                         None),
]
# fmt: on


@pytest.mark.parametrize(("model", "route_id"), MODELS)
def test_by_model(model: str, route_id: str | None) -> None:
    assert TABLE.by_model(model) == route_id
    assert TABLE.by_model(model) == route_id  # the second time from memory


def test_the_only_route_is_the_default() -> None:
    assert RouteTable([route("a")], None).default == "a"
    assert TABLE.default is None
    assert RouteTable([route("a"), route("b")], "b").default == "b"


def test_what_is_remembered_is_bounded() -> None:
    table = RouteTable([route("a", "m*")], None)
    for number in range(5000):
        assert table.by_model(f"m{number}") == "a"
    assert len(table._memo) <= 1024
