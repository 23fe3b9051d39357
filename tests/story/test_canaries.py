"""Canary secrets in every place that takes one, and none of them anywhere else (T-SEC-06).

They come in through the file and through the API, are asked for in every way, and go wrong in many;
then they are looked for, raw, URL-encoded and in base64, in every answer, log line, event, audit
row, metric and kept reply.
"""

import asyncio
import hashlib
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from proxy.control.routes import OPERATIONS
from tests.kit.httpclient import Answer, request
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import status
from tests.kit.reply import Reply
from tests.kit.script import Request
from tests.story.canaries import (
    CANARY,
    ENDPOINTS,
    KEYS,
    TARGETS,
    VARIABLES,
    W_C,
    WRONG,
    W,
    endpoints,
    found,
    targets,
)

pytestmark = pytest.mark.process

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
PLENTY = {"control_read": 100_000, "control_write": 100_000, "ingest": 100_000, "test": 100_000}
PARAMETERS = {
    "eventId": "evt-1", "endpointId": "api-main", "routeId": "api-main", "policyId": "secrets-core",
    "ruleId": "r", "targetId": "api-hook", "watcherId": "none", "incidentId": "none",
    "alertId": "none", "deadLetterId": "none", "digestId": "none", "correlationId": "none",
    "version": "1.0.0", "slug": "not-found", "name": "runtime-event",
}  # fmt: skip


def refuses(asked: Request) -> Reply:
    """A provider that quotes the credentials that it was sent, whatever it finds wrong."""
    code = (401, 400, 422, 404)[asked.number % 4]
    said = " ".join(f"{name}: {value}" for name, value in asked.raw_headers)
    return status(code, "invalid_request_error", message=f"Incorrect API key provided: {said}",
                  x_seen=asked.headers.get("authorization", "none"))  # fmt: skip


class Watch:
    """Asks, and keeps every answer for the search."""

    def __init__(self, parapet: Parapet) -> None:
        self._parapet = parapet
        self.seen: list[tuple[str, bytes]] = []
        self.made: dict[str, str] = {}  # secrets that Parapet made and showed once

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        shows: Iterable[str] = (),
        key: str = "",
        data: bool = False,
        own: bool = False,
        **headers: str,
    ) -> Answer:
        """`shows`: the members of the answer that are a made secret, shown this once.  `own`: the
        provider may quote the caller's key to him whose it is."""
        sent = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            sent = json.dumps(body).encode()
        named = {} if data else {"authorization": f"Bearer {CANARY['admin-key']}"}
        named |= {"content-type": "application/json"} if sent else {}
        named |= {"idempotency-key": key} if key else {}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = self._parapet.url if data else self._parapet.control_url
        answer = await request(method, url + path, sent, named)
        told = answer.body
        for name in shows:
            value: Any = answer.json
            for step in name.split("."):
                value = value[step]
            self.made[f"{path} {name} {len(self.made)}"] = value
            told = told.replace(value.encode(), b"")
        heads = "\n".join(f"{name}: {value}" for name, value in answer.raw_headers).encode()
        whole = heads + b"\n\n" + told
        whole = whole.replace(CANARY["caller"].encode(), b"") if own else whole
        self.seen.append((f"{method} {path} {answer.status}", whole))
        return answer

    def look(self) -> None:
        """In everything that was answered."""
        nothing_of(self.seen, {**CANARY, **self.made})


def nothing_of(texts: Iterable[tuple[str, bytes]], secrets: dict[str, str]) -> None:
    leaks = [f"{name} in {where}" for name, where in found(texts, secrets)]
    assert not leaks, "\n".join(leaks)


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(refuses) as running:
        yield running


@pytest.fixture
async def parapet(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Parapet]:
    url = provider.url + "/v1"
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "api").write_text(CANARY["api-file"] + "\n")
    (secrets / "hook").write_text(CANARY["api-hook-file"] + "\n")
    (tmp_path / "own").write_text(CANARY["file-file"] + "\n")
    file_endpoints = [
        *endpoints("file-", url),
        endpoint("file-env", "openai", url, api_key={"$env": "FILE_ENV"}),
        endpoint("file-file", "openai", url, api_key={"$file": str(tmp_path / "own")}),
        {"id": "open", "provider": "openai", "base_url": url, "allow_private": True},
        endpoint("closed", "openai", "http://127.0.0.1:9/v1", api_key=CANARY["file-api-key"]),
    ]
    routes = [{"id": each["id"], "endpoint": each["id"]} for each in file_endpoints]
    digest = hashlib.sha256(CANARY["file-key"].encode()).hexdigest()
    key = {"id": "ab12cd34ef56", "secret_sha256": digest, "role": "viewer"}
    config = workspace(file_endpoints, routes, deliveries=targets("file-"), keys=[key])
    control = {"rate_limits": PLENTY, "secrets_dir": str(secrets)}
    config |= {"control": control, "server": {"admin_key": CANARY["admin-key"]}}
    running = Parapet(config, tmp_path / "state", single=False, env=VARIABLES)
    try:
        yield await running.start()
    finally:
        await running.kill()


# --- all that is done with them


async def everything_is_made(watch: Watch, url: str) -> None:
    made = [(ENDPOINTS, each) for each in endpoints("api-", url)]
    made += [(TARGETS, each) for each in targets("api-")]
    env, file = {"$env": "PARAPET_SECRET_API"}, {"$file": "api"}
    made += [(ENDPOINTS, endpoint("api-env", "openai", url, api_key=env)),
             (ENDPOINTS, endpoint("api-file", "openai", url, api_key=file))]  # fmt: skip
    hook = {"url": "https://h.example.com/", "secret": {"$env": "PARAPET_SECRET_HOOK"},
            "headers": {"X-File": {"$file": "hook"}}}  # fmt: skip
    made.append((TARGETS, {"name": "api-refs", "type": "webhook", "config": hook}))
    made += [(W + "/routes", {"id": each["id"], "endpoint": each["id"]})
             for path, each in made if path == ENDPOINTS]  # fmt: skip
    made.append((W + "/alert-rules", {"id": "r", "name": "r", "condition": {"metric": "failover"}}))
    for number, (path, doc) in enumerate(made):
        for _ in range(2):  # made, and told again
            answer = await watch.ask("POST", path, doc, key=f"made-{number}")
            assert answer.status == 201, answer.text
        assert (await watch.ask("POST", path, doc)).status == 409
        if path in (ENDPOINTS, TARGETS):
            await what_was_made_is_written_again(watch, f"{path}/{answer.json['id']}")
    bare = {"name": "bare", "type": "webhook", "config": {"url": "https://h.example.com/"}}
    assert (await watch.ask("POST", TARGETS, bare, key="bare", shows=["config.secret"])).json
    await watch.ask("POST", TARGETS, bare, key="bare")
    for path in (f"{TARGETS}/bare", f"{TARGETS}/api-hook"):
        for number in range(2):
            sent: dict[str, Any] = {"key": f"{path}-{number}", "shows": ["config.secret"]}
            assert (await watch.ask("POST", path + "/rotate-secret", **sent)).status == 200
            await watch.ask("POST", path + "/rotate-secret", key=f"{path}-{number}")
    await keys_are_made(watch)


async def what_was_made_is_written_again(watch: Watch, path: str) -> None:
    """With its masks, with a patch, with another secret, under conditions that do not hold."""
    doc = (await watch.ask("GET", path)).json
    assert (await watch.ask("PUT", path, doc)).status == 200
    assert (await watch.ask("PATCH", path, {"labels": {"a": "b"}})).status == 200
    assert (await watch.ask("PATCH", path, {}, if_match='"r99"')).status == 412
    if path == f"{ENDPOINTS}/api-file":
        assert (await watch.ask("PATCH", path, {"api_key": CANARY["patched"]})).status == 200


async def keys_are_made(watch: Watch) -> None:
    new = {"name": "k", "role": "viewer", "workspaces": ["default"]}
    answer = await watch.ask("POST", KEYS, new, key="key", shows=["key"])
    await watch.ask("POST", KEYS, new, key="key")
    path = f"{KEYS}/{answer.json['key_id']}"
    for number in range(2):
        turn = {"key": f"turn-{number}"}
        assert (await watch.ask("POST", path + "/rotate", {}, shows=["key"], **turn)).status == 200
        await watch.ask("POST", path + "/rotate", {}, **turn)
    viewer = {"authorization": f"Bearer {watch.made[list(watch.made)[-1]]}"}
    assert (await watch.ask("GET", TARGETS, **viewer)).status == 200
    for each in targets("api-"):
        assert (await watch.ask("PUT", f"{TARGETS}/{each['id']}", each, **viewer)).status == 403
    await watch.ask("GET", f"/v1/status?key={CANARY['file-key']}")
    named = {"authorization": f"Bearer ppt_ab12cd34ef56_{CANARY['file-key']}"}
    assert (await watch.ask("GET", TARGETS, **named)).status == 200
    named = {"authorization": f"Bearer ppt_ab12cd34ef56_{W_C}"}
    assert (await watch.ask("GET", TARGETS, **named)).status == 401
    assert (await watch.ask("DELETE", path)).status == 204


async def much_goes_wrong(watch: Watch) -> None:
    for path, body in WRONG:
        answer = await watch.ask("POST", path, body, key="wrong")
        assert answer.status in (400, 403, 422), (body, answer.text)
    for where in ("file-", "api-"):
        for each in targets(where, "elsewhere.example.com"):
            path = f"{TARGETS}/{each['id']}"
            before = (await watch.ask("GET", path)).json
            for method in ("PUT", "PATCH"):
                body = {"config": before["config"] | {"url": "https://elsewhere.example.com/"}}
                assert (await watch.ask(method, path, body)).status in (409, 422)
            if where == "file-":
                assert (await watch.ask("DELETE", path)).status == 409
                assert (await watch.ask("PUT", path, each)).status == 409
                assert (await watch.ask("POST", TARGETS, each)).status == 409


async def everything_is_asked_for(watch: Watch) -> None:
    for operation in OPERATIONS:
        if operation.method in ("PUT", "PATCH", "DELETE") or operation.rate_class == "stream":
            continue
        path = operation.template.replace("{workspace}", "default").replace("{keyId}", "none")
        for name, value in PARAMETERS.items():
            path = path.replace(f"{{{name}}}", value)
        body = {} if operation.takes else None
        answer = await watch.ask(operation.method, path, body)
        assert answer.status != 500, answer.text
    stream = f"{W}/events/stream?after=0&max_events=50&timeout_s=1"
    assert (await watch.ask("GET", stream)).status == 200


async def providers_refuse(watch: Watch, names: Iterable[str]) -> None:
    """With the caller's own key, too, sent in each of the usual ways."""
    for name in names:
        for stream in (False, True) * 4:
            path = f"/r/{name}/v1/chat/completions"
            answer = await watch.ask("POST", path, {**CHAT, "stream": stream}, data=True)
            assert answer.status >= 400, answer.text
    own = f"sk-{CANARY['caller']}"
    for path in ("/r/open/v1/chat/completions", "/r/closed/v1/chat/completions", "/r/no/v1/models"):
        for headers in ({"authorization": f"Bearer {own}"}, {"x_api_key": own}, {"api_key": own}):
            answer = await watch.ask("POST", path, CHAT, data=True, own="open" in path, **headers)
            assert answer.status >= 400
    both = {"authorization": f"Bearer {own}", "x_api_key": own + "2"}
    await watch.ask("POST", "/r/open/v1/chat/completions", CHAT, data=True, **both)
    await watch.ask("POST", "/r/open/v1/chat/completions", own.encode(), data=True, **both)


async def the_file_is_broken_and_whole_again(watch: Watch, parapet: Parapet) -> None:
    whole = parapet.config_file.read_text()
    own = CANARY["file-api-key"]
    for broken in (
        whole.replace(f'"{own}"', f'"{own}'),
        whole.replace(f'"{own}"', f'["{own}"]'),
        whole.replace('"api_key"', '"apikey"'),
        whole.replace('"webhook_url"', '"webhook"'),
        whole.replace("https://hooks", "http://u:p@hooks"),
        whole.replace(CANARY["admin-key"], CANARY["admin-key"][:9]),
    ):
        assert broken != whole
        parapet.config_file.write_text(broken)
        await watch.ask("POST", "/v1/admin/reload")
        parapet.signal(signal.SIGHUP)
        await watch.ask("GET", "/v1/status")
    parapet.config_file.write_text(whole)
    assert (await watch.ask("POST", "/v1/admin/reload")).status == 200


# --- where they are looked for


def stored(database: Path) -> list[tuple[str, bytes]]:
    """Every row of every table, but for the bodies of documents, which are their own place."""
    found = []
    with sqlite3.connect(database) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        assert {"docs", "idem"} <= set(names)
        for name in names:
            columns = "ws, kind, id" if name == "docs" else "*"
            for row in db.execute(f"SELECT {columns} FROM {name}"):
                cells = [cell if isinstance(cell, bytes) else str(cell).encode() for cell in row]
                found.append((name, b"\0".join(cells)))
    db.close()
    assert sum(name == "idem" for name, _ in found) > 10
    return found


def files(state_dir: Path) -> list[tuple[str, bytes]]:
    """All that lies in the state directory but what must hold them."""
    theirs = ("parapet.yaml", "admin.key", "server.key")
    return [
        (str(path.relative_to(state_dir)), path.read_bytes())
        for path in state_dir.rglob("*")
        if path.is_file() and path.name not in theirs and "snapshot" not in str(path)
        and not path.name.startswith("parapet.db")
    ]  # fmt: skip


async def test_t_sec_06_no_canary_is_seen(parapet: Parapet, provider: FakeProvider) -> None:
    watch = Watch(parapet)
    await everything_is_made(watch, provider.url + "/v1")
    await much_goes_wrong(watch)
    names = ("file-main", "file-aws", "file-env", "file-file", "closed", "api-main", "api-aws",
             "api-env", "api-file")  # fmt: skip
    await providers_refuse(watch, names)
    await the_file_is_broken_and_whole_again(watch, parapet)
    seen = b"".join(json.dumps(entry.request.raw_headers).encode() for entry in provider.journal)
    for name in ("file-api-key", "file-header", "file-env", "file-file", "api-api-key", "api-env",
                 "patched", "caller"):  # fmt: skip
        assert CANARY[name].encode() in seen, name  # they were used
    until = time.monotonic() + 5
    requests = W + "/events?limit=100&type=runtime.request.*"
    while len((await watch.ask("GET", requests)).json["data"]) < len(names):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
    await everything_is_asked_for(watch)
    watch.look()
    assert await parapet.stop() == 0
    secrets = {**CANARY, **watch.made}
    nothing_of(stored(parapet.state_dir / "parapet.db"), secrets)
    nothing_of(files(parapet.state_dir), secrets)
