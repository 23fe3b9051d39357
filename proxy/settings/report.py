"""The report of `parapet check` as text: aligned, one fact a line, widest column first."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from proxy.model.exchange import Direction
from proxy.settings.check import EndpointReport, Report, RouteReport, WorkspaceReport
from proxy.settings.coverage import REFUSED_PATHS, SURFACES, PartCoverage, RouteCoverage
from proxy.settings.problems import Problem

_CREDENTIALS = {
    "own": "key from {source}",
    "unset": "{source} is not set: the caller's own key goes through",
    "caller": "the caller's own key goes through",
}


def as_text(report: Report) -> str:
    """The whole report, ending in a line break."""
    return "\n".join(_lines(report)) + "\n"


def problems_as_text(file: str, problems: Sequence[Problem]) -> str:
    count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
    return "\n".join([f"{file}: not valid, {count}", *(f"  {each}" for each in problems)]) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.file}: valid"
    yield ""
    workers = f"{report.workers} worker" + ("" if report.workers == 1 else "s")
    yield f"data plane    {report.listen}   data_auth {report.data_auth}, {workers}"
    yield f"control API   {report.control_listen}   admin key: {report.admin_key}"
    yield f"state         {report.state_dir}"
    for workspace in report.workspaces:
        yield ""
        yield from _workspace(workspace)
    yield from _section("warnings", report.warnings)
    yield from _section("accepted, not acted on in this version", report.not_acted_on)


def _section(title: str, problems: Sequence[Problem]) -> Iterator[str]:
    if problems:
        yield ""
        yield title
        yield from (f"  {each}" for each in problems)


def _workspace(workspace: WorkspaceReport) -> Iterator[str]:
    keys = f"{workspace.keys} key" + ("" if workspace.keys == 1 else "s")
    default = f", default route {workspace.default_route}" if workspace.default_route else ""
    yield f"workspace {workspace.id}   {keys}{default}"
    if workspace.endpoints:
        yield ""
        yield from table(["  endpoint", "provider", "address", "credential", "used by"],
                          [_endpoint(each) for each in workspace.endpoints])  # fmt: skip
    if not workspace.routes:
        yield "  no routes: every request is answered with 404"
    for route in workspace.routes:
        yield ""
        yield from _route(route)


def _endpoint(endpoint: EndpointReport) -> list[str]:
    credential = _CREDENTIALS[endpoint.credential].format(source=endpoint.source)
    used = ", ".join(endpoint.used_by)
    return [f"  {endpoint.id}", endpoint.provider, endpoint.url, credential, used]


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A head and its rows, each column as wide as its widest cell."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "   ".join(cells).rstrip()


def _route(route: RouteReport) -> Iterator[str]:
    yield f"route {route.id}   packs {' '.join(route.packs) or 'none'}"
    models = ", ".join(route.models)
    yield f"  callers   /r/{route.id}/…" + (f", or a model like {models}" if models else "")
    yield f"  goes to   {_way(route)}"
    if route.coverage is None:
        yield "  guarded   not guarded: no policy packs"
    else:
        yield from _coverage(route.coverage)


def _way(route: RouteReport) -> str:
    if route.failover is None:
        return f"{route.endpoint}, without failover"
    when = " or ".join(route.failover.conditions)
    order = ", then ".join(route.failover.order)
    return f"{order}   at most {route.failover.max_attempts} attempts; {when}"


def _coverage(coverage: RouteCoverage) -> Iterator[str]:
    rows: list[tuple[str, str, str]] = []
    directions: tuple[Direction, ...] = ("request", "response")
    for direction in directions:
        parts = [each for each in coverage.parts if each.direction == direction]
        label: str = direction
        for said, group in _alike(parts):
            names = " ".join(each.part for each in group)
            rows.append((label, names, said))
            label = ""
        rows += _unscannable(coverage, direction)
        holding = dict.fromkeys(
            pack for part in parts for pack in part.stream.get("held to its end", ())
        )
        if holding:
            rows.append(("", "every stream", f"leaves at its end: {' '.join(holding)}"))
        if direction == "response" and any(
            each.part == "reasoning" and each.scanned for each in parts
        ):
            rows.append(("", "reasoning in streams", _REASONING[coverage.reasoning]))
    if coverage.tools:
        rows.append(("tools", "declared, chosen, called", f"enforced: {' '.join(coverage.tools)}"))
    if coverage.requests:
        rows.append(("limits", "models and sizes", f"enforced: {' '.join(coverage.requests)}"))
    width = max(len(names) for _, names, _ in rows)
    rows.append(("paths", " ".join(path for each in SURFACES for path in each.paths), "scanned"))
    rows.append(("", " ".join(REFUSED_PATHS), "refused"))
    for side, names, said in rows:
        yield f"  {side:<9} {names:<{width}}   {said}"


_REASONING = {
    "hold": "held until its block is whole",
    "live": "judged as it comes, without holding",
}


def _unscannable(coverage: RouteCoverage, direction: Direction) -> Iterator[tuple[str, str, str]]:
    for each in coverage.not_scanned:
        if each.direction == direction and each.setting:
            yield "", each.what, f"not scanned: {each.reason} ({each.setting})"
    if direction == "request" and coverage.binary == "block":
        yield "", "images, files", "blocked (unscannable.binary: block)"
    if direction == "request" and coverage.remote == "block":
        yield "", "references", "blocked (unscannable.remote: block)"


def _alike(parts: Iterable[PartCoverage]) -> Iterator[tuple[str, list[PartCoverage]]]:
    """Parts that are treated the same, together, in their first one's order."""
    said = [(_said(part), part) for part in parts]
    order = list(dict.fromkeys(text for text, _ in said))
    by_text = sorted(said, key=lambda each: order.index(each[0]))
    for text, group in groupby(by_text, key=lambda each: each[0]):
        yield text, [part for _, part in group]


def _said(part: PartCoverage) -> str:
    if not part.scanned:
        return f"not scanned: {part.reason}"
    groups = (("enforced", part.enforced), ("recorded", part.recorded), ("shadow", part.shadow))
    told = [f"{name}: {' '.join(packs)}" for name, packs in groups if packs]
    if part.stream:
        told.append(f"stream: {_streaming(part)}")
    return "   ".join(told)


def _streaming(part: PartCoverage) -> str:
    """One way alone needs no names; of several each names its packs."""
    if len(part.stream) == 1:
        return next(iter(part.stream))
    return ", ".join(f"{way} ({' '.join(packs)})" for way, packs in part.stream.items())
