"""{w}/watchers: pages of providers that are looked at for changes (control-api.md §12.9, members
alerts.md §11).

Watchers are kept, listed and checked here; nothing looks yet, and `…/run` says so.
"""

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import TypeAdapter

from proxy.control.kinds import Kind, Object
from proxy.control.problems import FieldError
from proxy.control.wire import ListQuery
from proxy.guardrails.linear import LinearError, Regex
from proxy.model.documents import Severity
from proxy.model.ports import Ids
from proxy.settings.notices import Watcher

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
