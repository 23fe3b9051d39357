"""The models that a caller may name, in the shape his SDK reads (wire.md §2.2)."""

from collections.abc import Iterable, Mapping
from typing import Final

from proxy.model.exchange import Dialect, Json
from proxy.model.tenancy import Endpoint, Route
from proxy.wire import jsonbody
from proxy.wire.jsonbody import Object

_GLOB: Final = frozenset("*?[")
_EPOCH: Final = "1970-01-01T00:00:00Z"
_INPUT_LIMIT, _OUTPUT_LIMIT = 128_000, 8192


def model_ids(routes: Iterable[Route], endpoints: Mapping[str, Endpoint]) -> list[str]:
    """What can be named: aliases of the routes' endpoints, literal entries of `match.models`, and
    the routes themselves; each once, in that order of a route."""
    found: dict[str, None] = {}
    for route in routes:
        endpoint = endpoints.get(route.endpoint)
        if endpoint is not None:
            found.update(dict.fromkeys(endpoint.models))
        found.update((name, None) for name in route.match.models if not _GLOB & set(name))
        found[route.id] = None
    return list(found)


def list_models(dialect: Dialect, ids: Iterable[str]) -> bytes:
    entries: list[Json] = [_model(dialect, model_id) for model_id in ids]
    if dialect == "anthropic_messages":
        names = [entry["id"] for entry in entries if isinstance(entry, dict)]
        page: Object = {"data": entries, "has_more": False}
        page["first_id"] = names[0] if names else None
        page["last_id"] = names[-1] if names else None
        return jsonbody.dumps(page)
    if dialect == "gemini":
        return jsonbody.dumps({"models": entries})
    return jsonbody.dumps({"object": "list", "data": entries})


def one_model(dialect: Dialect, model_id: str, max_context: int | None = None) -> bytes:
    return jsonbody.dumps(_model(dialect, model_id, max_context))


def _model(dialect: Dialect, model_id: str, max_context: int | None = None) -> Object:
    if dialect == "anthropic_messages":
        return {
            "type": "model",
            "id": model_id,
            "display_name": model_id,
            "created_at": _EPOCH,
            "lifecycle": "active",
        }
    if dialect == "gemini":
        return {
            "name": f"models/{model_id}",
            "displayName": model_id,
            "supportedGenerationMethods": ["generateContent"],
            "inputTokenLimit": max_context or _INPUT_LIMIT,
            "outputTokenLimit": _OUTPUT_LIMIT,
        }
    return {"id": model_id, "object": "model", "created": 0, "owned_by": "parapet"}
