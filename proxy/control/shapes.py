"""From the models that validate to the schemas of the API's description.

A body is described by what its model takes.  An answer is described openly: a client ignores what
it does not know, so no answer forbids further members.  PUT takes every member alone, PATCH takes
a merge patch: the same members, none required, null where a member goes back to its default.
"""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from proxy.control.answers import ProblemTold, Time, Warned
from proxy.control.kinds import Kind, Labelled
from proxy.model.exchange import Json

Schema = dict[str, Any]
Side = Literal["validation", "serialization"]
PREFIX: Final = "#/components/schemas/"
_REF: Final = PREFIX + "{model}"
NULL: Final[Schema] = {"type": "null"}
_BASIC: Final[tuple[object, ...]] = (ProblemTold, Warned, Labelled)


class Shapes:
    """Schemas by what they describe.  `components` holds those that are named."""

    def __init__(self, sent: list[object], told: list[object]) -> None:
        self.components: dict[str, Schema] = {}
        self._sent = self._generated(sent, "validation")
        self._told = self._generated([*_BASIC, *told], "serialization")

    def _generated(self, shapes: list[object], side: Side) -> dict[int, Schema]:
        """Schemas by the id of the shape; what they define goes to the components."""
        adapters = {id(shape): _adapter(shape) for shape in shapes if not isinstance(shape, dict)}
        inputs = [(key, side, adapter) for key, adapter in adapters.items()]
        by_key, definitions = TypeAdapter.json_schemas(inputs, by_alias=True, ref_template=_REF)
        defined: dict[str, Schema] = definitions.get("$defs", {})
        clean = _untitled if side == "validation" else _opened
        names: dict[str, str] = {}
        for name, schema in defined.items():
            names[name] = self._free(name, clean(schema), {*names.values()})
        for name, schema in defined.items():
            self.components[names[name]] = _renamed(clean(schema), names)
        return {key: _renamed(clean(dict(schema)), names) for (key, _), schema in by_key.items()}

    def _free(self, name: str, schema: Schema, taken: set[str]) -> str:
        """A name for the component: its own, unless something else has it."""
        path, _, plain = re.sub(r"-(In|Out)put(__[0-9]+)?$", "", name).rpartition("__")
        bare = plain.removesuffix("Told")
        for each in (bare, f"{bare}Told", pascal(path.rpartition("__")[2]) + bare):
            if each not in taken and self.components.get(each, schema) == schema:
                return each
        return name.replace("__", ".")

    # --- bodies

    def sent(self, shape: object) -> Schema:
        return deepcopy(shape) if isinstance(shape, dict) else self._sent[id(shape)]

    def document(self, kind: Kind, form: Literal["new", "put", "patch"]) -> Schema:
        """What a POST, a PUT or a PATCH of a document takes."""
        name = pascal(kind.name) + {"new": "New", "put": "Put", "patch": "Patch"}[form]
        if name not in self.components:
            arms = [self._arm(kind, arm, form) for arm in self._arms(self._sent[id(kind)])]
            self.components[name] = arms[0] if len(arms) == 1 else {"anyOf": arms}
        return {"$ref": PREFIX + name}

    def _arm(self, kind: Kind, arm: Schema, form: str) -> Schema:
        labels = self.components["Labelled"]["properties"]["labels"]
        whole = deepcopy(arm)
        whole["properties"] = {**whole.get("properties", {}), "labels": deepcopy(labels)}
        if form == "new":
            return _id_from_name(kind, whole)
        return self._partial(whole, deep=form == "patch")

    def _partial(self, schema: Schema, *, deep: bool) -> Schema:
        """All members, none required, each also null; `deep`: those of objects inside, too."""
        part = {name: value for name, value in schema.items() if name not in ("required", "allOf")}
        part["properties"] = {
            name: nullable(self._inner(value) if deep else _undefaulted(value))
            for name, value in schema["properties"].items()
        }
        return part

    def _inner(self, schema: Schema) -> Schema:
        """A member of a merge patch."""
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return {"anyOf": [self._inner(arm) for arm in schema[word]]}
        if "$ref" not in schema:
            return _undefaulted(schema)
        name = schema["$ref"].removeprefix(PREFIX)
        whole = self.components[name]
        if "properties" not in whole:
            return {"$ref": schema["$ref"]}
        if f"{name}Patch" not in self.components:
            self.components[f"{name}Patch"] = {}  # a model may hold itself
            self.components[f"{name}Patch"] = self._partial(whole, deep=True)
        return {"$ref": f"{PREFIX}{name}Patch"}

    # --- answers

    def told(self, shape: object) -> Schema:
        return deepcopy(shape) if isinstance(shape, dict) else self._told[id(shape)]

    def representation(self, kind: Kind) -> Schema:
        """A document as it is answered: what was said with its defaults, and what we say of it."""
        name = pascal(kind.name) + "Document"
        if name not in self.components:
            ours = _server_members(kind, self.components["Labelled"]["properties"]["labels"])
            if kind.told is not None:
                (more,) = self._arms(self._told[id(kind.told)])
                ours |= {each: {**s, "readOnly": True} for each, s in more["properties"].items()}
            arms = []
            for arm in self._arms(self._told[id(kind)]):
                members = {**arm["properties"], **ours}
                if "location" in arm["properties"]:
                    members["location"] = arm["properties"]["location"]
                members[kind.id_member] = {"type": "string"}
                must = [*arm["properties"], *ours]
                required = [each for each in must if each not in ("warnings", "location")]
                arms.append({**arm, "properties": members, "required": sorted(set(required))})
            self.components[name] = arms[0] if len(arms) == 1 else {"anyOf": arms}
        return {"$ref": PREFIX + name}

    def page_of(self, item: Schema, *, log: bool) -> Schema:
        """The envelope of a list; a log may be walked by cursor, and then has no numbers."""
        count: Schema = {"type": ["integer", "null"] if log else "integer", "minimum": 0}
        properties: Schema = {
            "data": {"type": "array", "items": item, "maxItems": 100},
            "page": count,
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "total": count,
            "total_pages": count,
            "warnings": {"type": "array", "items": self.told(Warned)},
        }
        if log:
            properties["next_cursor"] = {"type": ["string", "null"]}
            properties["partial"] = {"type": "boolean"}
        required = ["data", "page", "limit", "total", "total_pages"]
        return {"type": "object", "properties": properties, "required": required}

    def _arms(self, schema: Schema) -> list[Schema]:
        """The objects that a schema stands for: one, or those of a union."""
        for word in ("oneOf", "anyOf"):
            if word in schema:
                return [arm for each in schema[word] for arm in self._arms(each)]
        if "$ref" in schema:
            return self._arms(self.components[schema["$ref"].removeprefix(PREFIX)])
        return [schema]

    def whole(self, schema: Schema) -> Schema:
        """The schema itself where it is a reference."""
        (one,) = self._arms(schema)
        return one

    def members(self, schema: Schema) -> set[str]:
        """Names of the members that the object, or one of a union, may have."""
        return {name for arm in self._arms(schema) for name in arm.get("properties", {})}


def pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def nullable(schema: Schema) -> Schema:
    arms = schema.get("anyOf")
    if isinstance(arms, list):
        return schema if NULL in arms else {**schema, "anyOf": [*arms, NULL]}
    return {"anyOf": [schema, NULL]}


def _undefaulted(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name != "default"}


def _adapter(shape: Any) -> TypeAdapter[Any]:
    return shape.adapter if isinstance(shape, Kind) else TypeAdapter(shape)


def _server_members(kind: Kind, labels: Schema) -> Schema:
    time = TypeAdapter(Time | None).json_schema()
    ours: Schema = {
        "labels": deepcopy(labels),
        "created_at": {**time, "readOnly": True},
        "updated_at": {**time, "readOnly": True},
        "revision": {"type": ["integer", "null"], "readOnly": True},
        "origin": {"type": "string", "enum": ["api", "file"], "readOnly": True},
        "location": {
            "type": "string",
            "readOnly": True,
            "description": "where it stands in the configuration file, for origin file",
        },
        "warnings": {"type": "array", "items": {"$ref": PREFIX + "Warned"}, "readOnly": True},
    }
    for name, value in kind.observed({}).items():
        ours[name] = {**_observed(value), "readOnly": True}
    return ours


def _observed(value: Json) -> Schema:
    """Of what is observed about a document the first value is known: that of a new one."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case str():
            return {"type": "string"}
        case _:
            return {}


def _id_from_name(kind: Kind, schema: Schema) -> Schema:
    """A new document whose id is made of its name needs one of the two."""
    required = schema.get("required", [])
    if kind.id_member not in required or kind.id_member not in kind.prepare({"name": "a"}):
        return schema
    rest = [name for name in required if name != kind.id_member]
    either = (
        {}
        if "name" in rest
        else {"anyOf": [{"required": [kind.id_member]}, {"required": ["name"]}]}
    )
    return {**schema, "required": rest, **either}


def _each(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """A copy with `change` made at every schema inside; names of members are not schemas."""
    if isinstance(schema, list):
        return [_each(item, change) for item in schema]
    if not isinstance(schema, dict):
        return schema
    whole: Schema = {}
    for word, value in schema.items():
        if word in ("properties", "$defs", "patternProperties") and isinstance(value, dict):
            whole[word] = {name: _each(each, change) for name, each in value.items()}
        elif word in ("enum", "default", "examples", "const", "required", "mapping"):
            whole[word] = deepcopy(value)
        else:
            whole[word] = _each(value, change)
    return change(whole)


def _untitled(schema: Schema) -> Schema:
    """Without the titles that are only the names again."""
    found: Schema = _each(schema, lambda each: {k: v for k, v in each.items() if k != "title"})
    return found


def _opened(schema: Schema) -> Schema:
    """As an answer: whatever else comes with it is allowed."""

    def opened(each: Schema) -> Schema:
        closed = each.get("additionalProperties") is False
        return {k: v for k, v in each.items() if not (closed and k == "additionalProperties")}

    found: Schema = _each(_untitled(schema), opened)
    return found


def _renamed(schema: Schema, names: dict[str, str]) -> Schema:
    def renamed(each: Schema) -> Schema:
        mapping = each.get("discriminator")
        if isinstance(mapping, dict):
            inner = {k: _target(v, names) for k, v in mapping.get("mapping", {}).items()}
            each = {**each, "discriminator": {**mapping, "mapping": inner}}
        if isinstance(each.get("$ref"), str):
            return {**each, "$ref": _target(each["$ref"], names)}
        return each

    found: Schema = _each(schema, renamed)
    return found


def _target(reference: str, names: dict[str, str]) -> str:
    name = reference.removeprefix(PREFIX)
    return PREFIX + names.get(name, name)


def references_of(value: Any) -> Iterator[str]:
    """Names of the components that a piece of the description refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(PREFIX)
        for inner in value.values():
            yield from references_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references_of(inner)
