"""From a path to its operations.

Matching is by segments of the raw path, each decoded alone: `%2F` never becomes a separator.
"""

from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from proxy.control.frame import Operation


@dataclass(slots=True)
class _Node:
    """One segment of the table's tree.  A literal wins over a parameter."""

    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameter: tuple[str, "_Node"] | None = None
    methods: dict[str, Operation] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Found:
    """What a path leads to: an operation per method, and the path's parameters."""

    methods: dict[str, Operation]
    params: dict[str, str]

    @property
    def allow(self) -> str:
        names = {*self.methods, "OPTIONS"} | ({"HEAD"} if "GET" in self.methods else set())
        return ", ".join(sorted(names))

    def operation(self, method: str) -> Operation | None:
        return self.methods.get("GET" if method == "HEAD" else method)


class Table:
    """The operations by path."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        self._root = _Node()
        for operation in operations:
            node = self._root
            for part in operation.template.strip("/").split("/"):
                if part.startswith("{"):
                    if node.parameter is None:
                        node.parameter = (part[1:-1], _Node())
                    assert node.parameter[0] == part[1:-1], "one name per place"
                    node = node.parameter[1]
                else:
                    node = node.literals.setdefault(part, _Node())
            assert operation.method not in node.methods, "one operation per method and path"
            node.methods[operation.method] = operation

    def find(self, raw_path: str) -> Found | None:
        node, params = self._root, {}
        for part in raw_path.removeprefix("/").split("/"):
            literal = node.literals.get(part)
            if literal is not None:
                node = literal
                continue
            if node.parameter is None:
                return None
            name, node = node.parameter
            try:
                params[name] = unquote_to_bytes(part).decode()
            except UnicodeDecodeError:
                return None
            if not params[name]:
                return None
        return Found(node.methods, params) if node.methods else None
