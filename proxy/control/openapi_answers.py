"""The answers and headers that operations share, for the API's description.

Which statuses an operation can give follows from its row in the table and from the order of
checks (control-api.md §4, §5); the slugs of a status are those of the table of problems.
"""

from typing import Any, Final

from proxy.control.frame import METRICS, PROBLEM, PUBLIC, Operation
from proxy.control.problems import KINDS
from proxy.control.shapes import PREFIX

Schema = dict[str, Any]
RATE_HEADERS: Final = (
    "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy",
    "RateLimit",
)  # fmt: skip
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

# fmt: off
HEADERS: Final[dict[str, tuple[str, Schema]]] = {
    "X-Request-Id": ("the client's if it is well formed, else a new one", _TEXT),
    "X-RateLimit-Limit": ("requests that the key's quota allows per window", _COUNT),
    "X-RateLimit-Remaining": ("what is left of it", _COUNT),
    "X-RateLimit-Reset": ("Unix time in seconds when the full quota is back", _COUNT),
    "RateLimit-Policy": ('class, quota and window: `"control-read";q=600;w=60`', _TEXT),
    "RateLimit": ('what is left, and seconds to wait: `"control-read";r=599;t=1`', _TEXT),
    "Retry-After": ("seconds to wait before the request is repeated", _COUNT),
    "WWW-Authenticate": ("the challenge, with the scheme Bearer", _TEXT),
    "Allow": ("the methods that this path has", _TEXT),
    "ETag": ("the revision of what a client can write; for If-Match and If-None-Match", _TEXT),
    "Location": ("the path of what was made", _TEXT),
    "Link": ("RFC 8288: first, prev, next and last page", _TEXT),
    "X-Total-Count": ("how many entries the whole list has", _COUNT),
    "Idempotent-Replayed": ("`true`: the answer of an earlier request with this key",
                            {"type": "string", "enum": ["true"]}),
    "Preference-Applied": ("the preference of `Prefer` that was honoured", _TEXT),
    "Deprecation": ("RFC 9745: since when something that the request uses is deprecated", _TEXT),
    "X-Parapet-Stale": ("the store is away: so many seconds ago these documents were read", _COUNT),
    "Sunset": ("RFC 8594: from when on it may be gone", _TEXT),
}

REASONS: Final[dict[int, str]] = {
    400: "The request is malformed", 401: "No valid key", 403: "The key may not do this",
    404: "Nothing is there", 405: "The path has other methods", 406: "Nothing acceptable to give",
    408: "The request took too long to come", 409: "It contradicts the present state",
    412: "A precondition does not hold", 413: "The body is too large",
    414: "The request line is too long", 415: "Not a media type that is taken",
    422: "Something in the request is invalid", 428: "A precondition is required",
    429: "A rate limit is used up", 431: "The header fields are too large",
    500: "A fault of the server", 501: "Not part of this version", 503: "Not now",
}
# fmt: on

_ALWAYS: Final = (400, 405, 406, 408, 414, 422, 431, 500, 503)
_OF_HEADERS: Final = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    409: ("Retry-After",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_BEFORE_KEY: Final = (400, 401, 405, 408, 414, 431, 503)


def refusals(operation: Operation) -> list[int]:
    """The statuses of errors that the operation can give."""
    found = set(_ALWAYS)
    if operation.scope != PUBLIC:
        found |= {401, 403, 429}
    if operation.scope == METRICS:
        found -= {403}
    if "{" in operation.template:
        found.add(404)
    if operation.takes:
        found |= {413, 415}
    if operation.idempotent:
        found.add(409)
    if operation.method in ("PUT", "PATCH", "DELETE"):
        found |= {409, 412, 428}
    if operation.method == "POST" and operation.success == 201:
        found.add(412)
    if operation.scope == "ingest:write":
        found.add(404)  # the body may name a workspace
    if not operation.built or operation.lacks:
        found.add(501)
    return sorted(found)


def header(name: str, *, required: bool = False) -> Schema:
    reference = {"$ref": f"#/components/headers/{name}"}
    if not required:
        return reference
    about, schema = HEADERS[name]
    return {"description": about, "schema": schema, "required": True}


def rate_headers(operation: Operation) -> Schema:
    """Those of every answer; the rate limits where the caller is known."""
    found = {"X-Request-Id": header("X-Request-Id", required=True)}
    if operation.scope not in (PUBLIC, METRICS):
        found |= {name: header(name, required=True) for name in RATE_HEADERS}
    return found


def headers() -> Schema:
    return {
        name: {"description": about, "schema": schema} for name, (about, schema) in HEADERS.items()
    }


def problem_name(status: int) -> str:
    return f"Problem{status}"


def problems() -> Schema:
    """One answer per status of an error, with the slugs that it may have."""
    return {problem_name(status): _problem(status) for status in sorted(REASONS)}


def _problem(status: int) -> Schema:
    slugs = [slug for slug, kind in KINDS.items() if kind.status == status]
    told = "\n".join(f"- `{slug}`: {KINDS[slug].about}" for slug in slugs)
    names = ["X-Request-Id", *_OF_HEADERS.get(status, ())]
    if status not in _BEFORE_KEY:
        names += RATE_HEADERS
    return {
        "description": f"{REASONS[status]}\n\n{told}",
        "headers": {name: header(name) for name in names},
        "content": {
            PROBLEM: {
                "schema": {
                    "allOf": [
                        {"$ref": f"{PREFIX}Problem"},
                        {"properties": {"status": {"const": status}}},
                    ]
                }
            }
        },
    }
