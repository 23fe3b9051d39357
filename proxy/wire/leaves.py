"""Where the texts of a body are, and how they are put back.

The collector is what every dialect's map is written with.

Law (guardrails.md §7.1): every string is text unless a map calls it structural or opaque, so an
unknown member is covered before anybody has heard of it.  Leaves are never joined.
"""

from binascii import Error as BadBase64
from binascii import a2b_base64
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from proxy.model.exchange import Json, Leaf, Part, Role
from proxy.wire import jsonbody
from proxy.wire.jsonbody import Path

NOTHING: Final[frozenset[str]] = frozenset()
# why nobody reads something: no text, kept elsewhere, sealed by the provider, its signed reasoning
Unread = Literal["binary", "remote", "opaque", "signed_reasoning"]
ALL_READ: Final[Mapping[Unread, int]] = {}
_MAX_PATH: Final = 100
_SCHEMA_WORDS: Final = frozenset(
    {"type", "properties", "required", "items", "description", "enum", "title", "default", "format"}
    | {"additionalProperties", "anyOf", "allOf", "oneOf", "const", "$ref", "$defs", "definitions"}
    | {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "strict"}
)
_SCHEMA_TYPES: Final = frozenset(
    {"object", "array", "string", "number", "integer", "boolean", "null", "function", "custom"}
)


class Unscannable(ValueError):
    """A body of this dialect that holds what no guardrail can read (403 `unscannable_content`)."""


class Gather:
    """Collects the leaves of one body.  `role` and `latest` hold for what is added next.

    `binary`, `remote`, `opaque` count what cannot be scanned (guardrails.md §7.4), `unread` the
    characters that stand for it in the body, by reason.
    """

    __slots__ = ("binary", "latest", "leaves", "opaque", "remote", "role", "unread")

    def __init__(self, role: Role) -> None:
        self.leaves: list[Leaf] = []
        self.role: Role = role
        self.latest = True
        self.binary = self.remote = self.opaque = 0
        self.unread: dict[Unread, int] = {}

    def __repr__(self) -> str:
        return f"<Gather {len(self.leaves)} leaves>"

    def miss(self, reason: Unread, value: Json) -> None:
        """A value that holds no text for us."""
        if type(value) is str and value:
            self.unread[reason] = self.unread.get(reason, 0) + len(value)

    def text(self, value: Json, part: Part, path: Path, *, rewritable: bool = True) -> None:
        """A string; anything else that stands in its place is walked."""
        if type(value) is str:
            if value:
                self.leaves.append(
                    Leaf(value, part, self.role, path, None, self.latest, rewritable)
                )
        elif value is not None:
            self.walk(value, part, path)

    def walk(
        self,
        value: Json,
        part: Part,
        path: Path,
        *,
        skip: Collection[str] = NOTHING,
        rewritable: bool = True,
    ) -> None:
        """Every string below `value` but those under the names of `skip`."""
        if type(value) is str:
            if value:
                self.leaves.append(
                    Leaf(value, part, self.role, path, None, self.latest, rewritable)
                )
        elif len(path) > _MAX_PATH:
            raise ValueError("nested too deeply")
        elif type(value) is dict:
            for name, child in value.items():
                if name not in skip:
                    self.walk(child, part, (*path, name), skip=skip, rewritable=rewritable)
        elif type(value) is list:
            for place, child in enumerate(value):
                self.walk(child, part, (*path, place), skip=skip, rewritable=rewritable)

    def data(self, value: Json, part: Part, path: Path) -> None:
        """A JSON value that a tool reads: its keys and numbers count too, but stay as they are."""
        self.leaves += _data_leaves(value, part, self.role, path, self.latest)

    def schema(self, value: Json, path: Path) -> None:
        """A JSON schema: keys that are not its own words count, type names do not."""
        if len(path) > _MAX_PATH:
            raise ValueError("nested too deeply")
        if type(value) is dict:
            for name, child in value.items():
                below = (*path, name)
                if name not in _SCHEMA_WORDS:
                    self.text(name, "tool_def", below, rewritable=False)
                elif name == "type" and type(child) is str and child in _SCHEMA_TYPES:
                    continue
                self.schema(child, below)
        elif type(value) is list:
            for place, child in enumerate(value):
                self.schema(child, (*path, place))
        else:
            self.text(value if type(value) is str else None, "tool_def", path)

    def json_text(self, value: Json, part: Part, path: Path) -> None:
        """A string that holds JSON."""
        if type(value) is str:
            if value:
                self.leaves += json_text_leaves(value, part, self.role, path, latest=self.latest)
        elif value is not None:
            self.data(value, part, path)

    def url(self, value: Json, path: Path) -> None:
        """A URL; the text inside a `data:text/…` one, which cannot be rewritten in place."""
        if type(value) is not str or not value.startswith("data:"):
            self.text(value, "metadata", path)
            return
        inner = data_text(value)
        if inner is None:
            self.binary += 1
            self.miss("binary", value)
        else:
            self.text(inner, "text", path, rewritable=False)


def data_text(url: str) -> str | None:
    """The text of a `data:` URL, None when it holds something else."""
    media, found, rest = url[5:].partition(",")
    if not found or not media.lower().startswith("text/"):
        return None
    if not media.lower().endswith(";base64"):
        return unquote_to_bytes(rest).decode("utf-8", "replace")
    try:
        return a2b_base64(rest).decode("utf-8", "replace")
    except (BadBase64, ValueError):
        return rest


# --- strings that hold JSON


def json_text_leaves(
    text: str, part: Part, role: Role, path: Path, *, latest: bool = True
) -> list[Leaf]:
    """The leaves of a string that holds JSON: `path` leads to it, `inner` goes on inside.

    A text that does not parse, or that two parsers could read differently, is one leaf that cannot
    be rewritten.
    """
    try:
        value = jsonbody.strict_value(text)
    except jsonbody.BodyFault:
        return [Leaf(text, part, role, path, None, latest, False)]
    found = _data_leaves(value, part, role, (), latest)
    for leaf in found:
        leaf.inner, leaf.path = leaf.path, path
    return found


def rewrite_json_text(text: str, rewrites: Iterable[tuple[Leaf, str]]) -> str:
    """The JSON in `text` with the leaves of `json_text_leaves` replaced.  Raises BodyFault."""
    changes: dict[Path, str] = {}
    for leaf, replacement in rewrites:
        if leaf.inner is None or not leaf.rewritable:
            raise jsonbody.BodyFault("A text that cannot be rewritten in place.")
        changes[leaf.inner] = replacement
    if () in changes:  # the JSON is one string
        return jsonbody.dump_text(changes[()]).decode()
    return jsonbody.splice_strings(text.encode(), changes).decode()


def _data_leaves(value: Json, part: Part, role: Role, path: Path, latest: bool) -> list[Leaf]:
    found: list[Leaf] = []
    todo: list[tuple[Json, Path]] = [(value, path)]
    while todo:
        node, at = todo.pop()
        if type(node) is str:
            if node:
                found.append(Leaf(node, part, role, at, None, latest, True))
        elif type(node) is dict:
            below = [(child, (*at, name)) for name, child in node.items()]
            found += [Leaf(name, part, role, (*at, name), None, latest, False) for name in node]
            todo += reversed(below)
        elif type(node) is list:
            todo += reversed([(child, (*at, place)) for place, child in enumerate(node)])
        elif type(node) is int or type(node) is float:
            found.append(Leaf(number_text(node), part, role, at, None, latest, False))
    return found


def number_text(number: float) -> str:
    """The digits of a number, as a rule looks at them."""
    text = repr(number)
    if "e" in text and "inf" not in text:
        text = format(Decimal(text), "f")
    return text[:-2] if text.endswith(".0") else text


# --- putting texts back


def apply_rewrites(
    body: bytes, doc: jsonbody.Object, rewrites: Iterable[tuple[Leaf, str]]
) -> bytes:
    """`body`, whose parse is `doc`, with each leaf replaced by its text.

    The log probabilities and token ids of a choice repeat its text token by token: where it was
    rewritten they become null.  Raises jsonbody.BodyFault for a leaf that cannot be rewritten.
    """
    changes: dict[Path, bytes] = {}
    inner: dict[Path, list[tuple[Leaf, str]]] = {}
    for leaf, text in rewrites:
        if not leaf.rewritable:
            raise jsonbody.BodyFault("A text that cannot be rewritten in place.")
        if leaf.inner is None:
            changes[leaf.path] = jsonbody.dump_text(text)
        else:
            inner.setdefault(leaf.path, []).append((leaf, text))
    for path, pairs in inner.items():
        old = _at(doc, path)
        if not isinstance(old, str):
            raise jsonbody.BodyFault("A string to be rewritten is not where it was read.")
        changes[path] = jsonbody.dump_text(rewrite_json_text(old, pairs))
    for path in _stale_repeats(doc, list(changes)):
        for inside in [known for known in changes if known[: len(path)] == path]:
            del changes[inside]
        changes[path] = b"null"
    return jsonbody.splice(body, changes) if changes else body


def _at(doc: jsonbody.Object, path: Path) -> object:
    node: object = doc
    for step in path:
        if isinstance(node, dict) and isinstance(step, str):
            node = node.get(step)
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            node = node[step]
        else:
            return None
    return node


def _stale_repeats(doc: jsonbody.Object, changed: list[Path]) -> set[Path]:
    stale: set[Path] = set()
    for path in changed:
        if path[:1] == ("choices",) and len(path) > 1:
            for name in ("logprobs", "token_ids"):
                where = (*path[:2], name)
                if _at(doc, where) is not None:
                    stale.add(where)
    return stale
