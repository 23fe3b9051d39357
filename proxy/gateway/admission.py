"""Who calls, and which route serves him: stages 1 and 2 of a request, over one snapshot.

Two of the five ways to a route need more than the head: the key's own route needs the key, the
model needs the body.  So the caller is settled first, from the head alone; nothing of a body is
read for somebody who may not call.
"""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from typing import Final

from proxy.gateway.snapshot import KeyView, RouteView, Rules, WorkspaceView
from proxy.model.errors import ClientAuth, Forbidden, NoEndpoint, NoSuchRoute
from proxy.model.events import parse_time
from proxy.model.exchange import Credential, Inbound, Surface
from proxy.wire.headers import KEY_PREFIX, find_credential
from proxy.wire.paths import PathFault, read_target

_DUMMY = hashlib.sha256(b"no such key").hexdigest()
_MAY_INVOKE = frozenset({"app", "admin"})
_LISTED = 20


@dataclass(slots=True, init=False)
class Visit:
    """A caller at the door: what his path means, who he is, where he may go.

    `route` is settled when the path, a header or his key names it; else the body's model decides.
    """

    surface: Surface
    credential: Credential
    workspace: WorkspaceView
    key: KeyView | None
    route: RouteView | None

    def __init__(
        self,
        surface: Surface,
        credential: Credential,
        workspace: WorkspaceView,
        key: KeyView | None,
        route: RouteView | None,
    ) -> None:
        self.surface = surface
        self.credential = credential
        self.workspace = workspace
        self.key = key
        self.route = route

    @property
    def role(self) -> str:
        return (self.key.doc.role or "app") if self.key else "anonymous"


def admit(rules: Rules, inbound: Inbound, now_ms: int) -> Visit:
    """Stages 1 and 2 as far as the head tells.

    Raises NoSuchRoute (bad path, unknown route), NoEndpoint, ClientAuth, Forbidden.
    """
    surface = _surface(inbound)
    credential = find_credential(inbound.headers, surface)
    key = _authenticate(rules, credential, inbound.peer, now_ms)
    marks = inbound.marks
    named = marks.get(b"x-parapet-workspace")
    workspace = _workspace(rules, key, named.decode("latin-1") if named is not None else None)
    route_id = surface.route_id
    if route_id is None and b"x-parapet-route" in marks:
        route_id = marks[b"x-parapet-route"].decode("latin-1")
    if route_id is None and key is not None:
        route_id = key.doc.route
    route = _route(workspace, key, route_id) if route_id is not None else None
    return Visit(surface, credential, workspace, key, route)


_surfaces: Final[dict[str, Surface]] = {}
_SURFACES = 1024


def _surface(inbound: Inbound) -> Surface:
    """What the path means.  What most requests ask, a POST of a known operation, depends on the
    target alone and is remembered, up to a bound.  Raises NoSuchRoute."""
    if inbound.method == "POST":
        known = _surfaces.get(inbound.target)
        if known is not None:
            return known
    surface = read_target(inbound.method, inbound.target, inbound.headers)
    if isinstance(surface, PathFault):
        raise NoSuchRoute(surface.message)
    if inbound.method == "POST" and surface.operation != "pass":
        if len(_surfaces) >= _SURFACES:
            _surfaces.clear()
        _surfaces[inbound.target] = surface
    return surface


def route_by_model(visit: Visit, model: str | None) -> RouteView:
    """Ways (4) and (5): the body's model, the default route.  Raises NoSuchRoute, NoEndpoint."""
    table = visit.workspace.table
    route_id = (table.by_model(model) if model else None) or table.default
    if route_id is not None and route_id in visit.workspace.routes:
        return _whole(visit.workspace.routes[route_id])
    asked = f"No route serves the model {model[:64]!r}." if model else "No route was named."
    raise NoSuchRoute(f"{asked} {_usable(visit.workspace, visit.key)}")


def _authenticate(rules: Rules, credential: Credential, peer: str, now_ms: int) -> KeyView | None:
    """The caller's key; None with `data_auth: open`.

    SECURITY: looked up by id, one SHA-256, one constant-time comparison, also for an unknown id.
    """
    is_open = rules.doc.data_auth == "open"
    if credential.conflict:
        raise ClientAuth("Two different credentials of one sort came with this request: send one.")
    shown = credential.parapet_key
    if shown is None:
        if is_open:
            return None
        raise ClientAuth(
            "No Parapet key came with this request. Send it where your SDK sends its key, "
            "or in x-parapet-key."
        )
    key_id, _, secret = shown[len(KEY_PREFIX) :].partition("_")
    key = rules.keys.get(key_id)
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
    known = hmac.compare_digest(digest, key.doc.secret_sha256 if key else _DUMMY)
    if key is not None and key.doc.previous_sha256 is not None:
        known |= _in_grace(key, digest, now_ms)
    if key is None or not known or _expired(key, now_ms):
        if is_open:
            return None
        raise ClientAuth("The Parapet key is not valid: unknown, wrong, expired or revoked.")
    if key.doc.role not in _MAY_INVOKE and "proxy:invoke" not in key.doc.scopes:
        raise Forbidden(f"Keys of the role {key.doc.role} may not call models; use an app key.")
    if key.doc.allowed_cidrs and not _inside(peer, key.doc.allowed_cidrs):
        raise Forbidden("This key may not be used from this address.")
    return key


def _in_grace(key: KeyView, digest: str, now_ms: int) -> bool:
    """It is the secret before a rotation, and its time is not over."""
    same = hmac.compare_digest(digest, key.doc.previous_sha256 or _DUMMY)
    return same and now_ms < _ms(key.doc.previous_expires_at or "")


def _ms(time: str) -> int:
    """What cannot be read is over."""
    return parse_time(time) or 0


def _expired(key: KeyView, now_ms: int) -> bool:
    if key.doc.expires_at is None:
        return False
    return _ms(key.doc.expires_at) <= now_ms


def _inside(peer: str, cidrs: list[str]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)


def _workspace(rules: Rules, key: KeyView | None, named: str | None) -> WorkspaceView:
    """The key's workspace; a key bound to all names one, else the only one counts."""
    if key is None:
        wanted = named or "default"
        if wanted in rules.workspaces:
            return rules.workspaces[wanted]
        if named is None and len(rules.workspaces) == 1:
            return next(iter(rules.workspaces.values()))
        raise NoSuchRoute("There is no such workspace here.")
    if named is None and key.home is not None:
        return key.home
    allowed = rules.workspaces.keys() if key.anywhere else key.workspaces & rules.workspaces.keys()
    if named is not None:
        if named not in allowed:
            raise Forbidden("This key is not bound to that workspace.")
        return rules.workspaces[named]
    raise Forbidden("This key is bound to several workspaces: name one in x-parapet-workspace.")


def _route(workspace: WorkspaceView, key: KeyView | None, route_id: str) -> RouteView:
    """SECURITY: a key bound to one route learns nothing of the others."""
    if key is not None and key.doc.route is not None and key.doc.route != route_id:
        raise Forbidden("This key is bound to another route.")
    route = workspace.routes.get(route_id)
    if route is None:
        raise NoSuchRoute(f"There is no route {route_id[:64]!r}. {_usable(workspace, key)}")
    return _whole(route)


def _whole(route: RouteView) -> RouteView:
    """SECURITY: a route that lacks a pack or its endpoint serves nobody.  Raises NoEndpoint."""
    if route.fault:
        raise NoEndpoint(f"Route {route.doc.id!r} cannot be served: {route.fault}.")
    return route


def _usable(workspace: WorkspaceView, key: KeyView | None) -> str:
    names = [key.doc.route] if key is not None and key.doc.route else sorted(workspace.routes)
    if not names:
        return "No route is configured."
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"Routes: {', '.join(names[:_LISTED])}{more}."
