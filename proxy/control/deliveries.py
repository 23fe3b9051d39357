"""{w}/deliveries: where alerts and digests go (control-api.md §12.5, members alerts.md §7).

Targets are kept, listed and checked here; nothing is sent to them yet, and `…/verify` says so.
Beside a webhook stands its secret before the last rotation (`rotation.py`), never shown.
"""

import base64
from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from proxy.control.alert_rules import ALERT_RULE
from proxy.control.kinds import Kind, Object, Revision, Stored
from proxy.control.problems import FieldError
from proxy.control.secrets import EACH
from proxy.control.shown import Once
from proxy.control.wire import ListQuery
from proxy.model.documents import slug
from proxy.model.events import iso
from proxy.model.ports import Ids
from proxy.runtime.addresses import forbidden
from proxy.runtime.ids import random_bytes
from proxy.settings.notices import Delivery

SECRETS: Final = (
    ("config", "webhook_url"),
    ("config", "url"),
    ("config", "secret"),
    ("config", "headers", EACH),
    ("config", "smtp", "password"),
    ("config", "routing_key"),
)
SECRET_BYTES: Final = 32
BOUND: Final = (
    (("config", "url"), (("config", "secret"), ("config", "headers", EACH))),
    (("config", "smtp", "host"), (("config", "smtp", "password"),)),
)
_BLOCKED: Final = "is not an address to send to"
_URLS: Final = ("webhook_url", "url")
_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_OBSERVED: Final[Object] = {
    "status": "unverified",
    "verified_at": None,
    "last_success_at": None,
    "last_error": None,
    "consecutive_failures": 0,
    "dead_letters": 0,
}


class DeliveriesQuery(ListQuery):
    type: list[Literal["slack", "email", "webhook", "pagerduty"]] | None = None
    status: list[Literal["unverified", "verified", "failing", "disabled"]] | None = None


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, DeliveriesQuery), "the table says so"
    return (query.type is None or doc["type"] in query.type) and (
        query.status is None or doc["status"] in query.status
    )


def _id(said: Object, _: Ids) -> str:
    return str(said.get("id") or slug(str(said["name"])))


def _check(said: Object, old: Object | None) -> Iterator[FieldError]:
    if not _id_fits(said):
        yield FieldError("pattern", "gives no id: send one", "name", "#/name")
    if old is not None and said["type"] != old["type"]:
        yield FieldError("immutable", "cannot be changed", "type", "#/type")
        return
    config = said["config"]
    assert isinstance(config, dict), "the model says so"
    for name in _URLS:
        url = config.get(name)
        if isinstance(url, str):
            yield from _check_url(url, name)
    smtp = config.get("smtp")
    if isinstance(smtp, dict) and forbidden(str(smtp.get("host") or "")):
        at = "config.smtp.host"
        yield FieldError("blocked_address", _BLOCKED, at, "#/config/smtp/host")
    headers = config.get("headers")
    for name in headers if isinstance(headers, dict) else ():
        if name.lower() in _HEADERS or name.lower().startswith("webhook-"):
            at = f"config.headers.{name}"
            yield FieldError("forbidden_header", "is ours to send", at, f"#/config/headers/{name}")


def _id_fits(said: Object) -> bool:
    return bool(said.get("id") or slug(str(said["name"])))


def _check_url(url: str, name: str) -> Iterator[FieldError]:
    """Only what stands there is looked at: no name is resolved before a message is sent."""
    field, pointer = f"config.{name}", f"#/config/{name}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme != "https" or not host or any(c <= " " or c == "\x7f" for c in url):
        yield FieldError("invalid_value", "must be an https URL", field, pointer)
        return
    if parts.username or forbidden(host):
        yield FieldError("blocked_address", _BLOCKED, field, pointer)


def _generated(said: Object) -> tuple[Object, Once | None]:
    """A webhook without secret gets one, which is told once."""
    config = said["config"]
    assert isinstance(config, dict), "the model says so"
    if said["type"] != "webhook" or config.get("secret") is not None:
        return said, None
    return with_secret(said, config)


def with_secret(said: Object, config: Object) -> tuple[Object, Once]:
    """The target with a new secret."""
    secret = "whsec_" + base64.b64encode(random_bytes(SECRET_BYTES)).decode()
    return {**said, "config": {**config, "secret": secret}}, Once(("config", "secret"), secret)


def _observed(_: Object) -> Object:
    return _OBSERVED


def _revise(said: Object, old: Stored | None, _: Object, __: int) -> Revision:
    """The secret before the last rotation stays, unless the messages go elsewhere now."""
    if old is None:
        return Revision(said, {})
    before, now = (doc["config"] for doc in (old.said, said))
    assert isinstance(before, dict), "the model says so"
    assert isinstance(now, dict), "the model says so"
    return Revision(said, old.beside if before.get("url") == now.get("url") else {})


def _shown_beside(beside: Object) -> Object:
    until_ms = beside.get("previous_secret_until")
    return {"previous_secret_expires_at": iso(until_ms) if isinstance(until_ms, int) else None}


DELIVERY: Final = Kind(
    name="delivery",
    noun="delivery target",
    parameter="targetId",
    adapter=TypeAdapter(Delivery),
    id_of=_id,
    keep=_keep,
    sorts=("name", "type", "status", "created_at"),
    secrets=SECRETS,
    check=_check,
    generated=_generated,
    observed=_observed,
    conditional_get=False,
    bound=BOUND,
    referrers=(ALERT_RULE,),
    revise=_revise,
    shown_beside=_shown_beside,
    live=True,
)
