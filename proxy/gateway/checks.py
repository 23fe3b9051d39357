"""Checks outside, ready to be asked: for each rule its address, its credential, its envelope.

Built with the rules of a snapshot.  SECURITY: a secret is resolved here and stands in the head of a
request alone; addresses are judged by the transport, as an endpoint's are.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

from proxy.guardrails.engine import Guard
from proxy.guardrails.external import BASE_URLS, ExternalRule
from proxy.model.documents import EnvRef, Secret
from proxy.model.exchange import Json, Outgoing
from proxy.model.ports import Upstream, Upstreams
from proxy.model.tenancy import Endpoint
from proxy.wire import jsonbody
from proxy.wire.providers.adapter import Adapter
from proxy.wire.providers.sigv4 import AwsKeys, signature_headers

Resolve = Callable[[Secret | None], str | None]
Envelope = Callable[[bytes, int], Outgoing]  # (body, now in milliseconds)

_PROVIDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "openai_moderation": ("openai", "openai-compatible", "azure-openai"),
    "llama_guard": ("openai", "openai-compatible", "azure-openai"),
    "bedrock_guardrail": ("bedrock",),
}


class Reachable(Protocol):
    """An endpoint of the workspace, ready."""

    doc: Endpoint
    adapter: Adapter
    upstream: Upstream


@dataclass(slots=True)
class Check:
    """One rule of one route.  `digest` is of everything that its answers hang on, but the text.

    `unset`: why it cannot be asked; then every question fails."""

    rule: ExternalRule
    digest: bytes
    upstream: Upstream | None = None
    envelope: Envelope | None = field(default=None, repr=False)
    unset: str = ""


@dataclass(slots=True)
class Checks:
    """Those of a route, by the moment at which they are asked.  Rules that only watch hold nothing:
    of requests they are asked `aside`, of answers afterwards.  `places`: endpoints that are made
    up, for the addresses that rules name."""

    preflight: tuple[Check, ...] = ()
    parallel: tuple[Check, ...] = ()
    aside: tuple[Check, ...] = ()
    holding: tuple[Check, ...] = ()  # an answer waits for them: buffer and window
    post: tuple[Check, ...] = ()
    places: tuple[Endpoint, ...] = ()

    @property
    def watching(self) -> bool:
        return bool(self.aside or self.post)

    @property
    def of_answers(self) -> bool:
        return bool(self.holding or self.post)


def build_checks(
    guard: Guard,
    workspace_id: str,
    endpoints: Mapping[str, Reachable],
    upstreams: Upstreams,
    resolve: Resolve,
) -> Checks | None:
    """None where no rule asks anybody.  Raises ValueError: a rule that names what is not there."""
    if not guard.outside:
        return None
    found, places = [], []
    for rule in guard.outside:
        check = Check(rule, _digest(rule, workspace_id))
        if rule.config.endpoint is not None:
            _at_endpoint(check, endpoints, resolve)
        else:
            place = _place(rule)
            places.append(place)
            check.upstream = upstreams.of(workspace_id, place)
            _at_address(check, place, resolve)
        found.append(check)
    before = [check for check in found if check.rule.request_stage is not None]
    after = [check for check in found if check.rule.response_stage is not None]
    return Checks(
        preflight=tuple(c for c in before if c.rule.acts and c.rule.request_stage == "preflight"),
        parallel=tuple(c for c in before if c.rule.acts and c.rule.request_stage == "parallel"),
        aside=tuple(c for c in before if not c.rule.acts),
        holding=tuple(c for c in after if c.rule.acts),
        post=tuple(c for c in after if not c.rule.acts),
        places=tuple(places),
    )


def sampled(checks: Sequence[Check], draw: float) -> list[Check]:
    """Those that look at the request of that number; such as enforce look at every one."""
    return [check for check in checks if draw < check.rule.sample_pct]


def _digest(rule: ExternalRule, workspace_id: str) -> bytes:
    said: Json = rule.config.model_dump(mode="json", by_alias=True)
    facts: list[Json] = [workspace_id, said, rule.spec.doubt]
    return hashlib.sha256(jsonbody.dumps_sorted(facts)).digest()


# --- where it is


def _place(rule: ExternalRule) -> Endpoint:
    """An endpoint for the address that the rule names.  Raises ValueError."""
    config = rule.config
    url = config.url or BASE_URLS[config.adapter].format(region=config.region)
    name = hashlib.sha256(f"{url}\n{config.allow_private}".encode()).hexdigest()[:16]
    return Endpoint(
        id=f"guard.{name}",
        provider="openai-compatible",
        base_url=url,
        allow_private=config.allow_private,
    )


def _at_address(check: Check, place: Endpoint, resolve: Resolve) -> None:
    url = urlsplit(place.url)
    path = _target(check.rule, quote(url.path, safe="/%:@!$&'()*+,;=~"))
    lines = [f"POST {path} HTTP/1.1", f"host: {url.netloc.lower()}", "accept-encoding: identity"]
    for name, said in check.rule.config.headers.items():
        value = resolve(said) if isinstance(said, EnvRef) else said
        if value is None:
            check.unset = f"header {name} has no value"
            return
        if not value.isascii() or not value.isprintable():
            check.unset = f"header {name} cannot be sent"
            return
        lines.append(f"{name.lower()}: {value}")
    lines.append("content-type: application/json")
    head = "\r\n".join(lines).encode("ascii")

    def envelope(body: bytes, _: int) -> Outgoing:
        return Outgoing(b"%b\r\ncontent-length: %d\r\n\r\n" % (head, len(body)), body)

    check.envelope = envelope


def _at_endpoint(check: Check, endpoints: Mapping[str, Reachable], resolve: Resolve) -> None:
    """Raises ValueError."""
    rule = check.rule
    view = endpoints.get(rule.config.endpoint or "")
    if view is None:
        name = rule.config.endpoint
        raise ValueError(f"rule {rule.rule_id} asks endpoint {name}, which cannot be used")
    allowed = _PROVIDERS.get(rule.adapter.name)
    if allowed is not None and view.doc.provider not in allowed:
        wanted = " or ".join(allowed)
        raise ValueError(f"rule {rule.rule_id} needs an endpoint of provider {wanted}")
    check.upstream = view.upstream
    adapter, path = view.adapter, _target(rule, view.adapter.target()[3])
    keys = _aws_keys(view.doc, resolve) if not adapter.has_credential else None
    if keys is None:
        check.envelope = lambda body, _: adapter.own_call(path, body)
        return
    region = view.doc.region or rule.config.region
    if region is None:
        check.unset = "a signature needs a region"
        return
    url = urlsplit(view.doc.url)
    check.envelope = _Signed(adapter, f"{url.scheme}://{url.netloc.lower()}", path, keys, region)


def _aws_keys(endpoint: Endpoint, resolve: Resolve) -> AwsKeys | None:
    name, secret = resolve(endpoint.access_key_id), resolve(endpoint.secret_access_key)
    if endpoint.provider != "bedrock" or not name or not secret:
        return None
    return AwsKeys(name, secret, resolve(endpoint.session_token))


@dataclass(slots=True)
class _Signed:
    """An envelope with a signature, made anew for each request."""

    adapter: Adapter
    origin: str
    path: str
    keys: AwsKeys
    region: str

    def __call__(self, body: bytes, now_ms: int) -> Outgoing:
        added = signature_headers(
            "POST",
            self.origin + self.path,
            {"content-type": "application/json"},
            body,
            keys=self.keys,
            region=self.region,
            service="bedrock",
            now_ms=now_ms,
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in added.items())
        return self.adapter.own_call(self.path, body, lines.encode("ascii"))


def _target(rule: ExternalRule, base: str) -> str:
    """The path of the adapter below `base`, which may have its beginning already (`/v1`)."""
    name, version = rule.spec.guardrail
    path = rule.adapter.path.replace("{id}", quote(name, safe="")).replace("{version}", version)
    steps = path.split("/")[1:]
    for count in range(len(steps), 0, -1):
        begun = "/" + "/".join(steps[:count])
        if base.endswith(begun):
            return base + path[len(begun) :]
    return (base + path) or "/"
