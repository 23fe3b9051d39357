"""The human page of the API's description: HTML that can be read without a script.

SECURITY: everything that comes from the description goes through `escape`; nothing on the page
is inline script or style, so that the policy `default-src 'self'` holds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from proxy.wire.jsonbody import dumps, dumps_indented

Schema = Mapping[str, Any]
DEPTH: Final = 4  # of members shown in one table
_LIMITS: Final = (
    ("minimum", "≥ {}"), ("exclusiveMinimum", "> {}"), ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"), ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"), ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"), ("maxProperties", "at most {} members"),
    ("pattern", "matches {}"), ("format", "{}"),
)  # fmt: skip


def render(doc: Schema, changes: Sequence[Mapping[str, str]]) -> bytes:
    """The whole page."""
    return "".join(_page(doc, changes)).encode()


def _page(doc: Schema, changes: Sequence[Mapping[str, str]]) -> Iterator[str]:
    info = doc["info"]
    title = escape(info["title"])
    yield "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    yield f"<title>{title}</title><link rel='stylesheet' href='/docs/style.css'>"
    yield "<link rel='icon' href='data:,'><script src='/docs/app.js' defer></script></head><body>"
    yield "<a class='skip' href='#main'>Skip to the operations</a>"
    groups = _groups(doc)
    yield "<nav aria-label='Operations'>"
    yield f"<a class='brand' href='#top'>{title}</a><div id='filter'></div>"
    for tag, operations in groups.items():
        yield f"<h2><a href='#tag-{_slug(tag)}'>{escape(tag)}</a></h2><ul>"
        for method, path, operation in operations:
            yield f"<li data-find='{_words(method, path, operation)}'>"
            yield f"<a href='#{operation['operationId']}'>{_badge(method)}"
            yield f"<span>{_inline(operation['summary'])}</span></a></li>"
        yield "</ul>"
    yield "<h2><a href='#changes'>Changes</a></h2></nav><main id='main'>"
    yield f"<header id='top'><h1>{title} <small>{escape(info['version'])}</small></h1>"
    yield "<p class='files'><a href='/openapi.json'>openapi.json</a> · "
    yield "<a href='/v1/schemas'>schemas</a> · <a href='/v1/changelog'>changelog</a></p>"
    yield f"{_prose(info['description'])}</header>"
    for tag, operations in groups.items():
        yield f"<section id='tag-{_slug(tag)}'><h2>{escape(tag)}</h2>"
        for method, path, operation in operations:
            yield from _operation(doc, method, path, operation)
        yield "</section>"
    yield "<section id='changes'><h2>Changes</h2><table><tbody>"
    for change in reversed(changes):
        cells = (change["version"], change["date"], change["kind"], change["text"])
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></section></main></body></html>\n"


def _groups(doc: Schema) -> dict[str, list[tuple[str, str, Schema]]]:
    groups: dict[str, list[tuple[str, str, Schema]]] = {tag["name"]: [] for tag in doc["tags"]}
    for path, methods in doc["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append((method, path, operation))
    return groups


def _operation(doc: Schema, method: str, path: str, operation: Schema) -> Iterator[str]:
    name = operation["operationId"]
    shown = re.sub(r"(\{\w+\})", r"<var>\1</var>", escape(path))
    yield f"<details id='{name}' data-find='{_words(method, path, operation)}'><summary>"
    yield f"{_badge(method)}<code class='path'>{shown}</code>"
    yield f"<span class='about'>{_inline(operation['summary'])}</span>"
    if operation.get("x-not-implemented"):
        yield "<span class='flag'>not in this version</span>"
    if operation.get("deprecated"):
        yield "<span class='flag'>deprecated</span>"
    yield "</summary><div class='body'>"
    if "description" in operation:
        yield _prose(operation["description"])
    scope, rate = operation["x-scope"], operation["x-rate-class"]
    yield f"<p class='facts'>Scope <code>{escape(scope)}</code> · rate class "
    yield f"<code>{escape(rate)}</code> · id <code>{escape(name)}</code></p>"
    yield from _parameters(operation)
    yield from _request(doc, operation)
    yield "<h3>Try it</h3>"
    yield _code(_curl(method, path, operation))
    yield from _answers(doc, operation)
    yield "</div></details>"


def _parameters(operation: Schema) -> Iterator[str]:
    if not operation["parameters"]:
        return
    yield "<h3>Parameters</h3><table><thead><tr><th>Name<th>In<th>Type<th>Meaning</tr></thead>"
    yield "<tbody>"
    for each in operation["parameters"]:
        must = "<b class='must' title='required'>*</b>" if each["required"] else ""
        meaning = _inline(each.get("description", ""))
        kind = _type(each["schema"]) + _bounds(each["schema"])
        yield f"<tr><td><code>{escape(each['name'])}</code>{must}<td>{each['in']}<td>{kind}"
        yield f"<td>{meaning}</tr>"
    yield "</tbody></table>"


def _request(doc: Schema, operation: Schema) -> Iterator[str]:
    if "requestBody" not in operation:
        return
    content = operation["requestBody"]["content"]
    body = next(iter(content.values()))
    yield f"<h3>Body <small>{escape(', '.join(content))}</small></h3>"
    for example in body.get("examples", {}).values():
        yield f"<h4>{escape(example['summary'])}</h4>{_json(example['value'])}"
    yield from _members(doc, body["schema"])


def _answers(doc: Schema, operation: Schema) -> Iterator[str]:
    yield "<h3>Answers</h3>"
    errors: list[tuple[str, Schema]] = []
    for status, answer in operation["responses"].items():
        whole = _resolved(doc, answer)
        content = whole.get("content", {})
        if "application/problem+json" in content:
            errors.append((status, whole))
            continue
        media = ", ".join(content)
        yield f"<h4><b class='status'>{status}</b> {_inline(whole['description'])} "
        yield f"<small>{escape(media)}</small></h4>"
        names = ", ".join(f"<code>{escape(name)}</code>" for name in whole.get("headers", {}))
        yield f"<p class='facts'>Headers {names}</p>" if names else ""
        if "application/json" in content:
            yield from _members(doc, content["application/json"]["schema"])
    yield "<details class='errors'><summary>Errors: "
    yield ", ".join(status for status, _ in errors)
    yield "</summary><table><tbody>"
    for status, whole in errors:
        lines = whole["description"].splitlines()
        slugs = [line for line in lines if line.startswith("- ")]
        yield f"<tr><td><b class='status'>{status}</b><td>{_inline(lines[0])}<ul>"
        yield "".join(f"<li>{_inline(line[2:])}</li>" for line in slugs)
        yield "</ul></tr>"
    yield "</tbody></table></details>"


# --- schemas


def _members(doc: Schema, schema: Schema) -> Iterator[str]:
    """A table of the members; of a union one each."""
    whole = _resolved(doc, schema)
    arms = whole.get("anyOf") or whole.get("oneOf")
    if arms and "properties" not in whole:
        for number, arm in enumerate(arms, 1):
            first = " open" if number == 1 else ""
            yield f"<details class='arm'{first}><summary>{_arm_name(doc, arm, number)}</summary>"
            yield from _members(doc, arm)
            yield "</details>"
        return
    rows = list(_rows(doc, schema, "", 0))
    if not rows:
        yield f"<p class='facts'>{_type(whole)}</p>"
        return
    yield "<table class='members'><thead><tr><th>Member<th>Type<th>Meaning</tr></thead><tbody>"
    yield from rows
    yield "</tbody></table>"


def _arm_name(doc: Schema, arm: Schema, number: int) -> str:
    whole = _resolved(doc, arm)
    kind = whole.get("properties", {}).get("type", {}).get("const")
    if kind:
        return f"<code>type: {escape(str(kind))}</code>"
    if whole.get("type") == "array":
        return "A list"
    return escape(whole.get("description", f"Form {number}").splitlines()[0])


def _rows(doc: Schema, schema: Schema, before: str, depth: int) -> Iterator[str]:
    whole = _resolved(doc, schema)
    if whole.get("type") == "array":
        yield from _rows(doc, whole.get("items", {}), before and f"{before}[]", depth)
        return
    required = whole.get("required", ())
    for name, member in whole.get("properties", {}).items():
        inner = _plain(doc, member)
        path = f"{before}.{name}" if before else name
        must = "<b class='must' title='required'>*</b>" if name in required else ""
        flags = "".join(
            f"<span class='flag'>{label}</span>"
            for word, label in (("readOnly", "read-only"), ("deprecated", "deprecated"))
            if member.get(word)
        )
        about = _inline(str(member.get("description", "")).partition("\n")[0])
        kind = _type(inner, nullable=_nullable(doc, member)) + _bounds(inner)
        if member.get("default") not in (None, [], {}):
            about += f" <small>default <code>{escape(_short(member['default']))}</code></small>"
        yield f"<tr class='d{min(depth, DEPTH)}'><td><code>{escape(path)}</code>{must}{flags}"
        yield f"<td>{kind}<td>{about}</tr>"
        if depth < DEPTH:
            yield from _rows(doc, inner, path, depth + 1)


def _plain(doc: Schema, schema: Schema) -> Schema:
    """The schema without its null, and resolved."""
    whole = _resolved(doc, schema)
    arms = [arm for arm in whole.get("anyOf", ()) if arm.get("type") != "null"]
    return _plain(doc, arms[0]) if len(arms) == 1 else whole


def _nullable(doc: Schema, schema: Schema) -> bool:
    whole = _resolved(doc, schema)
    arms: Sequence[Schema] = whole.get("anyOf", ())
    return any(arm.get("type") == "null" for arm in arms)


def _resolved(doc: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        found: Any = doc
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = {**found, **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _type(schema: Schema, *, nullable: bool = False) -> str:
    if "const" in schema:
        return f"<code>{escape(_short(schema['const']))}</code>"
    values = schema.get("enum") or schema.get("x-extensible-enum")
    if values:
        more = " …" if "enum" not in schema else ""
        kind = " ".join(f"<code>{escape(_short(value))}</code>" for value in values) + more
    elif "anyOf" in schema:
        names = [_type(arm) for arm in schema["anyOf"]]
        kind = " or ".join(dict.fromkeys(names))
    elif "$ref" in schema:
        kind = escape(schema["$ref"].rpartition("/")[2])
    else:
        told = schema.get("type", "any")
        kind = " or ".join(told) if isinstance(told, list) else str(told)
        if kind == "array":
            kind = f"list of {_type(schema.get('items', {}))}"
    return f"{kind} or null" if nullable and not kind.endswith("null") else kind


def _bounds(schema: Schema) -> str:
    told = [text.format(schema[word]) for word, text in _LIMITS if word in schema]
    return f" <small>{escape(', '.join(told))}</small>" if told else ""


# --- text


def _curl(method: str, path: str, operation: Schema) -> str:
    place = path.replace("{workspace}", "default")
    lines = [f"curl -X {method.upper()} http://localhost:8081{place}"]
    if operation["security"]:
        lines.append("-H 'Authorization: Bearer '\"$PARAPET_KEY\"")
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        media, body = next(iter(content.items()))
        lines.append(f"-H 'Content-Type: {media}'")
        example: Schema = next(iter(body.get("examples", {}).values()), {"value": {}})
        sent = _short(example["value"]).replace("'", "'\\''")
        lines.append(f"-d '{sent}'")
    return " \\\n  ".join(lines)


def _short(value: object) -> str:
    text = dumps(value).decode()
    return text[1:-1] if isinstance(value, str) else text


def _json(value: object) -> str:
    return _code(dumps_indented(value).decode())


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def _badge(method: str) -> str:
    return f"<b class='method {method}'>{method.upper()}</b>"


def _words(method: str, path: str, operation: Schema) -> str:
    told = f"{method} {path} {operation['summary']} {operation['operationId']} "
    return escape((told + operation["x-scope"]).lower(), quote=True)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _prose(text: str) -> str:
    """Paragraphs and lists of a description."""
    html: list[str] = []
    for block in re.split(r"\n\n+", text.strip()):
        items = re.split(r"(?m)^\* ", block)
        if len(items) == 1:
            html.append(f"<p>{_inline(block)}</p>")
        else:
            html.append(f"<p>{_inline(items[0])}</p>" if items[0].strip() else "")
            html.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items[1:]))
            html.append("</ul>")
    return "".join(html)


def _inline(text: str) -> str:
    """Code and links in a line; everything else is text."""
    safe = escape(text)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return re.sub(r"\[([^\]]+)\]\((/[^)\s]*)\)", r"<a href='\2'>\1</a>", safe)
