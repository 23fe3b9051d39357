"""A YAML file as plain values, with the line of every member.

Safe by construction: no tag makes an object, depth and size are bounded, and aliases are counted
as often as they are used, so that a small file cannot become a large one.  Scalars are read by the
rules of YAML 1.2, so that `off`, `no` and `12:30` stay text.  A mapping key that comes twice is an
error.  JSON is read as the YAML it is.
"""

import re
from dataclasses import dataclass, field

import yaml

from proxy.model.exchange import Json
from proxy.settings.problems import ConfigError, Path, Problem
from proxy.wire import jsonbody

MAX_FILE_BYTES = 4_194_304
MAX_DEPTH = 64
MAX_NODES = 400_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_KINDS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_TAGS = {_TAG + kind for kind in _KINDS}
_QUOTED = ("'", '"', "|", ">")
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?")


@dataclass(slots=True)
class Tree:
    """`lines` knows the line of each member and item; `line_of` falls back to the one around it."""

    name: str
    value: Json
    lines: dict[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int | None:
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def parse_yaml(data: bytes, name: str) -> Tree:
    """Read one document.  Raises ConfigError; `name` stands in its messages."""
    if len(data) > MAX_FILE_BYTES:
        raise _refused(name, f"larger than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(name, f"not UTF-8 at byte {error.start}") from None
    try:
        _bound(text, name)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        if text.lstrip()[:1] == "{":
            return Tree(name, _as_json(data, error, name))
        raise _syntax(error, name) from None
    tree = Tree(name, None)
    if node is not None:
        builder = _Builder(tree)
        tree.value = builder.build(node, ())
        if builder.problems:
            raise ConfigError(builder.problems)
    return tree


def _bound(text: str, name: str) -> None:
    """Refuse what is nested too deeply before anything recurses into it."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else None
                raise _refused(name, f"nested more than {MAX_DEPTH} levels deep", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _as_json(data: bytes, error: yaml.YAMLError, name: str) -> Json:
    """JSON that a YAML reader stumbles over: tabs between members."""
    try:
        return jsonbody.loads(data)
    except jsonbody.JsonError:
        raise _syntax(error, name) from None


def _refused(name: str, message: str, line: int | None = None) -> ConfigError:
    return ConfigError([Problem((), message, name, line)])


def _syntax(error: yaml.YAMLError, name: str) -> ConfigError:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        message = f"not YAML: {error.problem} (column {mark.column + 1})"
        return _refused(name, message, mark.line + 1)
    return _refused(name, "not YAML: it holds a character that is not allowed")


class _Builder:
    """Turns nodes into values and notes lines; goes on after a problem, to find them all."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._nodes = 0
        self._above: set[int] = set()
        self.problems: list[Problem] = []

    def build(self, node: yaml.Node, path: Path) -> Json:
        line = node.start_mark.line + 1
        self._tree.lines.setdefault(path, line)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _refused(self._tree.name, f"more than {MAX_NODES} values", line)
        if node.tag not in _TAGS:
            self._wrong(path, "tags are not used here", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._above or len(path) > MAX_DEPTH:
            raise _refused(self._tree.name, "an alias leads into itself, or too deep", line)
        self._above.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self._above.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Json]:
        own: dict[str, Json] = {}
        merged: dict[str, Json] = {}
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            if key_node.tag == _TAG + "merge":
                self._merge(value_node, path, merged)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong(path, "a member's name must be plain text", mark)
                continue
            key = self._text(key_node, path)
            below = (*path, key)
            if key in own:
                first = self._tree.lines[below]
                said = f"comes twice in one mapping (first in line {first})"
                self._wrong(below, f"{said}, column {mark.column + 1}", mark)
                continue
            self._tree.lines[below] = mark.line + 1
            own[key] = self.build(value_node, below)
        return {**merged, **own}

    def _merge(self, node: yaml.Node, path: Path, into: dict[str, Json]) -> None:
        """`<<: *base`, or a list of them: the first one wins."""
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.build(each, path)
            if isinstance(value, dict):
                for key, item in value.items():
                    into.setdefault(key, item)
            else:
                self._wrong(path, "<< takes a mapping", each.start_mark)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Json:
        value: str = node.value
        if node.style in _QUOTED or node.tag == _TAG + "str":
            return self._text(node, path)
        if _NULL.fullmatch(value):
            return None
        if _BOOL.fullmatch(value):
            return value[0] in "tT"
        if _INT.fullmatch(value):
            return int(value)
        if _FLOAT.fullmatch(value):
            return float(value)
        return self._text(node, path)

    def _text(self, node: yaml.ScalarNode, path: Path) -> str:
        value: str = node.value
        if not any("\ud800" <= c <= "\udfff" for c in value):
            return value
        try:  # JSON writes characters beyond U+FFFF as two escapes
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._wrong(path, "holds half of a surrogate pair", node.start_mark)
            return ""

    def _wrong(self, path: Path, message: str, mark: yaml.Mark) -> None:
        self.problems.append(Problem(path, message, self._tree.name, mark.line + 1))
