"""Secrets that can be told from everything else, the documents that hold them, and the search."""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from tests.kit.processes import endpoint

W = "/v1/workspaces/default"
TARGETS, ENDPOINTS, KEYS = W + "/deliveries", W + "/endpoints", "/v1/keys"
PLACES = (
    "file-api-key", "file-header", "file-access-key-id", "file-secret-access-key",
    "file-session-token", "file-env", "file-file", "file-slack", "file-url", "file-secret",
    "file-hook-header", "file-smtp", "file-routing-key", "admin-key", "file-key",
    "api-api-key", "api-header", "api-access-key-id", "api-secret-access-key",
    "api-session-token", "api-env", "api-file", "api-slack", "api-url", "api-secret",
    "api-hook-header", "api-smtp", "api-routing-key", "api-hook-env", "api-hook-file",
    "patched", "caller", "wrong",
)  # fmt: skip


def canary(place: str) -> str:
    """Distinct, long, and nobody else's word."""
    return f"cnry{hashlib.sha256(place.encode()).hexdigest()[:40]}"


CANARY = {place: canary(place) for place in PLACES}
VARIABLES = {
    "FILE_ENV": CANARY["file-env"],
    "PARAPET_SECRET_API": CANARY["api-env"],
    "PARAPET_SECRET_HOOK": CANARY["api-hook-env"],
}


def forms(secret: str) -> set[bytes]:
    """Raw, URL-encoded, in base64 at each of its three alignments."""
    found = {secret.encode(), quote(secret, safe="").encode()}
    for shift in range(3):
        packed = base64.b64encode(b"x" * shift + secret.encode())
        found.add(packed[4 if shift else 0 : -4])
    return found


def targets(where: str, host: str = "hooks.example.com") -> list[dict[str, Any]]:
    """One delivery target of each type, with a canary in each of its secrets."""
    c = {name.removeprefix(where): value for name, value in CANARY.items()}
    slack = {"webhook_url": f"https://{host}/services/T/B/{c['slack']}"}
    hook = {
        "url": f"https://{host}/in?token={c['url']}",
        "secret": f"whsec_{c['secret']}",
        "headers": {"X-Auth": c["hook-header"]},
    }
    mail = {"to": ["a@example.com"], "smtp": {"host": host, "password": c["smtp"]}}
    found = [
        ("slack", "slack", slack), ("hook", "webhook", hook), ("mail", "email", mail),
        ("pager", "pagerduty", {"routing_key": c["routing-key"]}),
    ]  # fmt: skip
    return [{"id": where + name, "name": where + name, "type": kind, "config": config}
            for name, kind, config in found]  # fmt: skip


def endpoints(where: str, url: str) -> list[dict[str, Any]]:
    c = {name.removeprefix(where): value for name, value in CANARY.items()}
    aws = {name: c[name.replace("_", "-")]
           for name in ("access_key_id", "secret_access_key", "session_token")}  # fmt: skip
    return [
        endpoint(where + "main", "openai", url, api_key=c["api-key"],
                 extra_headers={"X-Token": c["header"]}),
        {"id": where + "aws", "provider": "bedrock", "region": "us-east-1", "allow_private": True,
         "base_url": url.removesuffix("/v1"), **aws},
    ]  # fmt: skip


def found(texts: Iterable[tuple[str, bytes]], secrets: dict[str, str]) -> list[tuple[str, str]]:
    """(secret, where) of each that is there."""
    sought = [(name, form) for name, secret in secrets.items() for form in forms(secret)]
    return [(name, where) for where, text in texts for name, form in sought if form in text]


# --- bodies that are refused, with a secret where it is easily quoted

W_C, E = CANARY["wrong"], "https://e.com/"
# fmt: off
WRONG: list[tuple[str, object]] = [
    (TARGETS, {"name": "w", "type": "slack", "config": {"webhook_url": W_C}}),
    (TARGETS, {"name": "w", "type": "slack", "config": {"webhook_url": [W_C]}}),
    (TARGETS, {"name": "w", "type": "slack", "config": {"webhook_url": f"http://{W_C}"}}),
    (TARGETS, {"name": "w", "type": "slack", "config": {"webhook_url": f"https://u:{W_C}@e.com/"}}),
    (TARGETS, {"name": "w", "type": "slack", "config": {"webhook_url": f"https://127.0.0.1/{W_C}"}}),
    (TARGETS, {"name": "w", "type": "slack", "config": {"webhook_url": {"$env": W_C}}}),
    (TARGETS, {"name": "w", "type": "slack", "config": {"webhook_url": {"$file": f"/{W_C}"}}}),
    (TARGETS, {"name": "w", "type": "slack", "config": W_C}),
    (TARGETS, {"name": "w", "type": "slack", "config": {"url": W_C}}),
    (TARGETS, {"name": "w", "type": W_C, "config": {}}),
    (TARGETS, {"name": "w", "type": "webhook", "secret": W_C, "config": {"url": E}}),
    (TARGETS, {"name": "w", "type": "webhook", "config": {"url": E, "secret": {"a": W_C}}}),
    (TARGETS, {"name": "w", "type": "webhook", "config": {"url": E, "headers": {"host": W_C}}}),
    (TARGETS, {"name": "w", "type": "webhook", "config": {"url": E, "headers": [W_C]}}),
    (TARGETS, {"name": "w", "type": "webhook", "config": {"url": E, "secret": f"\1{W_C}"}}),
    (TARGETS, {"name": "w", "type": "email", "config": {"to": ["a"], "smtp": {"password": [W_C]}}}),
    (TARGETS, {"name": "w", "type": "email", "config": {"to": ["a"], "smtp": {"port": W_C}}}),
    (TARGETS, {"name": "w", "type": "pagerduty", "config": {"routing_key": 5, "region": W_C}}),
    (ENDPOINTS, {"id": "w", "provider": "openai", "api_key": [W_C]}),
    (ENDPOINTS, {"id": "w", "provider": "openai", "apikey": W_C}),
    (ENDPOINTS, {"id": "w", "provider": W_C, "api_key": W_C}),
    (ENDPOINTS, {"id": "w", "provider": "openai", "base_url": f"https://u:{W_C}@e.com"}),
    (ENDPOINTS, {"id": "w", "provider": "openai", "extra_headers": {"X-A": f"{W_C}\r\nX-B: 1"}}),
    (ENDPOINTS, {"id": "w", "provider": "bedrock", "secret_access_key": W_C}),
    (ENDPOINTS, {"id": "w", "provider": "openai", "secret_access_key": W_C}),
    (ENDPOINTS, {"id": "w", "provider": "openai", "api_key": {"$env": W_C}}),
    (ENDPOINTS, {"id": "w", "provider": "openai", "api_key": {"$file": f"../{W_C}"}}),
    (KEYS, {"name": "w", "role": W_C, "workspaces": ["default"]}),
    (KEYS, {"name": "w", "role": "viewer", "workspaces": ["default"], "secret": W_C}),
    (TARGETS, f'{{"name":"w","config":{{"secret":"{W_C}"'.encode()),
    (TARGETS, f'{{"name":"w","config":{{"secret":"{W_C}","secret":"{W_C}"}}}}'.encode()),
    (TARGETS, f'"{W_C}"'.encode()),
    (TARGETS, W_C.encode()),
    ("/v1/ingest/runtime", {"event_id": [W_C], "route_id": "x", "timestamp": W_C}),
]
# fmt: on
