"""Settings that this version takes, checks and does not act on.  Nothing pretends to.

`parapet check` lists each one that a file really sets to something.  When its machinery arrives,
its line goes.
"""

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

from proxy.model.tenancy import Endpoint
from proxy.settings.notices import WorkspaceSettings
from proxy.settings.problems import Path, Problem
from proxy.settings.schema import Config, Workspace

# fmt: off
IN_CONFIG: Final = (
    ("egress",                    "no webhook or watcher is called"),
    ("smtp",                      "no mail is sent"),
    ("alerts",                    "no alert rule is evaluated"),
    ("telemetry",                 "a spool has its default size and never refuses a request"),
    ("events.include_excerpts",   "events hold no excerpts"),
    ("events.sample_pass",        "only results with a finding are told"),
    ("events.sample_allowed",     "only denials are told"),
    ("events.user_header",        "events name no user"),
)
IN_WORKSPACE: Final = (
    ("alert_rules",               "no alert rule is evaluated"),
    ("deliveries",                "nothing is delivered"),
    ("watchers",                  "nothing is watched"),
)
IN_ROUTE: Final = (
    ("translation",               "no request is translated to another dialect"),
    ("exposure",                  "no blast radius is computed"),
)
# fmt: on
_UNBUILT: Final = ("gemini", "vertex")


def not_acted_on(config: Config) -> list[Problem]:
    """Each setting of the file that has no effect in this version."""
    return list(_all(config))


def _all(config: Config) -> Iterator[Problem]:
    yield from _set(config, IN_CONFIG, ())
    for index, workspace in enumerate(config.workspaces):
        yield from _workspace(workspace, ("workspaces", index))


def _workspace(workspace: Workspace, at: Path) -> Iterator[Problem]:
    yield from _set(workspace, IN_WORKSPACE, at)
    if _unheeded(workspace.settings) != WorkspaceSettings():
        yield Problem(
            (*at, "settings"),
            "of incidents only those of endpoints are made; no digests, no notifications",
        )
    for number, endpoint in enumerate(workspace.endpoints):
        path = (*at, "endpoints", number)
        yield from _provider(endpoint, path)
    for number, route in enumerate(workspace.routes):
        yield from _set(route, IN_ROUTE, (*at, "routes", number))


def _unheeded(settings: WorkspaceSettings) -> WorkspaceSettings:
    """The settings with the defaults of those that are acted on."""
    usual = WorkspaceSettings()
    after_s = usual.incidents.resolve_after_seconds
    incidents = settings.incidents.model_copy(update={"resolve_after_seconds": after_s})
    return settings.model_copy(update={"timezone": usual.timezone, "incidents": incidents})


def _provider(endpoint: Endpoint, at: Path) -> Iterator[Problem]:
    if endpoint.provider in _UNBUILT:
        yield Problem((*at, "provider"), f"{endpoint.provider}: every request to it is refused")
    if endpoint.provider == "bedrock" and endpoint.api_key is None and endpoint.access_key_id:
        yield Problem((*at, "access_key_id"), "requests are not signed: only api_key works")
    if endpoint.bedrock_api not in ("auto", "invoke"):
        said = f"{endpoint.bedrock_api}: only InvokeModel for Claude works"
        yield Problem((*at, "bedrock_api"), said)


def _set(document: BaseModel, members: tuple[tuple[str, str], ...], at: Path) -> Iterator[Problem]:
    """The listed members that are set, and not to what asks for nothing."""
    for name, why in members:
        holder, *path = document, *name.split(".")
        for part in path[:-1]:
            holder = getattr(holder, part)
        last = path[-1]
        field = type(holder).model_fields[last]
        quiet = field.get_default(call_default_factory=True)
        if last in holder.model_fields_set and getattr(holder, last) != quiet:
            yield Problem((*at, *path), why)
