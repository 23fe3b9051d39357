"""Which route serves a request: first match wins (architecture.md §3).

(1) `/r/<route_id>/…`, (2) `x-parapet-route`, (3) the route of the caller's key, (4) the body's
model: a route id, or a glob of a route's `match.models`, (5) the default route, or the only one.
"""

import re
from collections.abc import Sequence

from proxy.model.tenancy import Route

_MEMO_SIZE = 1024


class RouteTable:
    """The routes of one workspace, compiled: exact names in a dict, prefix globs by length, the
    rest in file order.  Model names are remembered, up to a bound."""

    def __init__(self, routes: Sequence[Route], default_route: str | None) -> None:
        self.ids = {route.id for route in routes}
        only = routes[0].id if len(routes) == 1 else None
        self.default = default_route or only
        self._exact: dict[str, tuple[int, str]] = {}
        self._globs: list[tuple[int, re.Pattern[str], str]] = []
        self._memo: dict[str, str | None] = {}
        named = [(glob, route.id) for route in routes for glob in route.match.models]
        for order, (glob, route_id) in enumerate(named):
            if "*" in glob or "?" in glob:
                self._globs.append((order, re.compile(_translate(glob)), route_id))
            else:
                self._exact.setdefault(glob, (order, route_id))

    def by_model(self, model: str) -> str | None:
        """The route that the model names."""
        if model in self.ids:
            return model
        if model in self._memo:
            return self._memo[model]
        found = self._exact.get(model)
        for order, pattern, route_id in self._globs:
            if found is not None and order > found[0]:
                break
            if pattern.fullmatch(model):
                found = (order, route_id)
                break
        if len(self._memo) >= _MEMO_SIZE:
            self._memo.clear()
        self._memo[model] = found[1] if found else None
        return self._memo[model]


def matches(glob: str, model: str) -> bool:
    """Whether that pattern of a route is one of the model."""
    return re.fullmatch(_translate(glob), model) is not None


def _translate(glob: str) -> str:
    """`*` is any run of characters, `?` any one; everything else is itself."""
    return "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in glob)
