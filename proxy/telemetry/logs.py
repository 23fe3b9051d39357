"""Log lines: one JSON object per line on stderr, redacted, never one per request.

What of the data path is worth a line is decided by one `match` over `Observation`.  A line cannot
be forged and a terminal cannot be driven by what a stranger sent: control characters leave escaped.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, TextIO, assert_never

from proxy.model.exchange import Json
from proxy.model.observations import (
    GuardAsked,
    GuardAskingEnded,
    GuardOverflowed,
    LimitReached,
    Observation,
    RequestFinished,
    RetryBudgetSpent,
    SnapshotApplied,
    SnapshotRejected,
    SpoolDropped,
    SpoolLost,
    StreamEventDropped,
    StreamRecovery,
    UpstreamStale,
)
from proxy.telemetry.redaction import Redactor
from proxy.wire import jsonbody

NAME: Final = "parapet"
TRACE_LINES: Final = 30
TEXT_CHARS: Final = 2000
_FIELDS: Final = "parapet_fields"
# what JSON leaves as it is, and a terminal or a line reader does not
_UNSAFE: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


class JsonLines(logging.Formatter):
    """`{"at":…,"level":…,"event":…, fields…}`"""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, _FIELDS, {})
        doc: dict[str, Json] = {
            "at": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
            "level": record.levelname.lower(),
            "event": _cut(record.getMessage()),
        }
        if record.name != NAME:
            doc["logger"] = record.name
        doc |= {name: _plain(value) for name, value in fields.items() if name not in doc}
        if record.exc_info and record.exc_info[1] is not None:
            doc["fault"] = _cut(repr(record.exc_info[1]))
            frames = traceback.format_exception(record.exc_info[1])
            doc["trace"] = [*"".join(frames).splitlines()[-TRACE_LINES:]]
        # SECURITY: redacted before it is escaped, so that no escape hides a secret
        return jsonbody.dumps(_redacted(doc, self._redactor.redact)).decode().translate(_UNSAFE)


class Log:
    """What the product says of itself.  `event` is a dotted name that never changes."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        level: str = "INFO",
        redactor: Redactor | None = None,
        process: str = "",
    ) -> None:
        self._process = process
        self.redactor = redactor or Redactor()
        self._learned: frozenset[str] = frozenset()
        self._logger = logging.Logger(NAME, level)
        self.handler = logging.StreamHandler(stream or sys.stderr)
        self.handler.setFormatter(JsonLines(self.redactor))
        self._logger.addHandler(self.handler)

    def learn(self, secrets: Iterable[str]) -> None:
        """The secrets of rules that are about to hold.  Those of the rules before stay known: what
        began under them may still fail with one in its text."""
        fresh = frozenset(secrets)
        if fresh != self._learned:
            self.redactor.know(fresh | self._learned)
            self._learned = fresh

    def adopt(self, *names: str) -> None:
        """Let libraries' warnings come out here, in the same form ("": all of them)."""
        for name in names:
            logger = logging.getLogger(name)
            logger.handlers = [self.handler]
            logger.setLevel(logging.WARNING)
            logger.propagate = False

    def info(self, event: str, fields: Mapping[str, object] | None = None) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, fields: Mapping[str, object] | None = None) -> None:
        self._write(logging.WARNING, event, fields)

    def error(
        self,
        event: str,
        fields: Mapping[str, object] | None = None,
        fault: BaseException | None = None,
    ) -> None:
        self._write(logging.ERROR, event, fields, fault)

    def tell(self, event: str, fields: dict[str, Json], fault: BaseException | None = None) -> None:
        """A warning, or with a fault an error: what the control API writes."""
        level = logging.WARNING if fault is None else logging.ERROR
        self._write(level, event, fields, fault)

    def crash(self, task: str, fault: BaseException) -> None:
        """A task of ours ended by an exception."""
        self.error("task.crashed", {"task": task}, fault)

    def bug(self, fault: BaseException) -> None:
        """A request ended by an exception that nobody foresaw."""
        self.error("request.crashed", {}, fault)

    def observe(self, what: Observation) -> None:
        """A line for what an operator must know; nothing for what is counted only."""
        match what:
            case RequestFinished() | UpstreamStale() | StreamEventDropped() | GuardAskingEnded():
                return
            case RetryBudgetSpent() | LimitReached() | StreamRecovery():
                return
            case GuardOverflowed(policy_id, rule_id):
                self.warning("guard.overflowed", {"policy": policy_id, "rule": rule_id})
            case GuardAsked(policy_id, rule_id, result, failed):
                if failed:
                    told: dict[str, object] = {"policy": policy_id, "rule": rule_id}
                    self.warning("guard.check_failed", {**told, "fault": result})
            case SpoolLost(reason):
                self.error("spool.lost", {"reason": reason})
            case SpoolDropped(line_class, lines):
                self.error("spool.dropped", {"class": line_class, "lines": lines})
            case SnapshotApplied(version):
                self.info("snapshot.applied", {"version": version})
            case SnapshotRejected(version, reason):
                self.error("snapshot.rejected", {"version": version, "reason": reason})
            case never:
                assert_never(never)

    def _write(
        self,
        level: int,
        event: str,
        fields: Mapping[str, object] | None,
        fault: BaseException | None = None,
    ) -> None:
        info = (type(fault), fault, fault.__traceback__) if fault is not None else None
        told = {"process": self._process, **(fields or {})} if self._process else fields or {}
        self._logger.log(level, event, extra={_FIELDS: told}, exc_info=info)

    def __repr__(self) -> str:
        return f"<Log {logging.getLevelName(self._logger.level)}>"


def open_log(process: str, secrets: Iterable[str] = ()) -> Log:
    """The log of one process, on stderr; what libraries warn of comes out in it too."""
    log = Log(process=process)
    log.learn(secrets)
    log.adopt("", "asyncio", "aiohttp.server", "aiohttp.web", "aiohttp.access")
    return log


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS] + "…"


def _plain(value: object) -> Json:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return _cut(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case _:
            return _cut(str(value))


def _redacted(value: Json, redact: Callable[[str], str]) -> Json:
    match value:
        case str():
            # a lone surrogate cannot be written; it comes from names of the operating system
            return redact(value.encode("utf-8", "backslashreplace").decode())
        case list():
            return [_redacted(item, redact) for item in value]
        case dict():
            return {name: _redacted(item, redact) for name, item in value.items()}
        case _:
            return value
