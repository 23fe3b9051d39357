"""{w}/watchers: pages of providers that are looked at for changes (control-api.md §12.9, members
alerts.md §11).

Watchers are kept, listed and checked here; nothing looks yet, and `…/run` says so.  What was found
is an entry of the log `diffs` whose `type` is the watcher's id.
"""

from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter

from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Kind, Object, one_of
from proxy.control.logs import LogQuery, log_reply
from proxy.control.problems import FieldError
from proxy.control.wire import ListQuery
from proxy.guardrails.linear import LinearError, Regex
from proxy.model.batch import LogFilter
from proxy.model.documents import Severity
from proxy.model.ports import Ids
from proxy.runtime.addresses import forbidden
from proxy.settings.notices import Watcher

DIFFS_LOG: Final = "diffs"
_OBSERVED: Final[Object] = {
    "last_checked_at": None,
    "last_changed_at": None,
    "last_value_hash": None,
    "last_error": None,
    "consecutive_errors": 0,
}


class WatchersQuery(ListQuery):
    status: list[Literal["active", "paused", "failing"]] | None = None
    provider: list[str] | None = None
    severity: list[Severity] | None = None


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, WatchersQuery), "the table says so"
    return (
        (query.status is None or doc["status"] in query.status)
        and (query.provider is None or doc["provider"] in query.provider)
        and (query.severity is None or doc["severity"] in query.severity)
    )


def _id(said: Object, _: Ids) -> str:
    return str(said["watcher_id"])


def _check(said: Object, _: Object | None) -> Iterator[FieldError]:
    if forbidden(urlsplit(str(said["source_url"])).hostname or ""):
        at, pointer = "source_url", "#/source_url"
        yield FieldError("blocked_address", "is not an address to look at", at, pointer)
    selector = said.get("selector")
    if not isinstance(selector, dict):
        return
    at, pointer = "selector.value", "#/selector/value"
    value, how = selector.get("value"), selector.get("type", "text")
    if how != "text" and not value:
        yield FieldError("missing", f"is required for {how}", at, "#/selector")
    elif how == "json_pointer" and not str(value).startswith("/"):
        yield FieldError("pattern", "must be a JSON Pointer", at, pointer)
    elif how == "regex":
        try:
            Regex(str(value))
        except LinearError as why:
            yield FieldError("regex_syntax", f"RE2: {why}"[:200], at, pointer)


def _observed(_: Object) -> Object:
    return _OBSERVED


WATCHER: Final = Kind(
    name="watcher",
    noun="watcher",
    parameter="watcherId",
    adapter=TypeAdapter(Watcher),
    id_member="watcher_id",
    id_of=_id,
    keep=_keep,
    sorts=("watcher_id", "provider", "severity", "created_at", "updated_at"),
    check=_check,
    observed=_observed,
    conditional_get=False,
)


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Impact(_Told):
    """What a change means, in percent of the price."""

    cost_change_percent: int | None
    affected_workspaces: list[str]


class WatcherDiff(_Told):
    """A change that a watcher found (events.md §5.8)."""

    watcher_id: str
    change_type: str
    old_value: str | None
    new_value: str | None
    effective_date: str | None
    affected_routes: list[str]
    impact_assessment: Impact


async def list_diffs(passage: Passage, deps: ControlDeps) -> Reply:
    """What the watcher found, newest first."""
    query = passage.query
    assert isinstance(query, LogQuery), "the table says so"
    watcher = await one_of(WATCHER, passage, deps)
    narrowed = LogFilter(types=(watcher.id,))
    return await log_reply(passage, deps, passage.workspace, DIFFS_LOG, query, narrowed=narrowed)
