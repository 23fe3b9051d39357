"""`parapet replay`: what another version of a pack would say of a file of texts."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from proxy.app.asking_services import ask_services
from proxy.control.policy_replay import ReplayItem, compare, item_faults, sample_of, told
from proxy.guardrails.replay import STREAMED, Compared, NotReplayed, Opinion, by_rule
from proxy.model.exchange import Json
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from proxy.settings.load import load_config
from proxy.settings.options import ReplayOptions
from proxy.settings.packs import BUILTIN, PackShelf, PackSource, builtin_packs, read_pack, settle
from proxy.settings.problems import ConfigError
from proxy.settings.report import problems_as_text, table
from proxy.settings.schema import Workspace
from proxy.settings.secrets import SecretReader, environment
from proxy.wire import jsonbody

MAX_TEXTS_BYTES: Final = 64 << 20
SHOWN: Final = 50  # changed texts in the table; JSON has all
_LEFT_OUT: Final = {
    "external": "external, and a replay asks no service; it looks at {texts} of the texts",
    "not_a_text": "what it judges is no text",
}
_ITEMS: Final = (".jsonl", ".ndjson")
_DOCUMENTS: Final = (".yaml", ".yml", ".json")


class ReplayFault(Exception):
    """What was asked for cannot be replayed; the words are for the caller."""


def replay(options: ReplayOptions) -> int:
    """0; 2 for what cannot be replayed; 1 with `exit_code` when a text changes or a stream differs.
    Raises ConfigError, OSError."""
    try:
        shelf, settings, workspace, reader = _shelf(options)
        candidate = _pack(options.candidate, shelf)
        baseline = _baseline(options, candidate, shelf)
        items = list(_items(options))
    except ReplayFault as why:
        sys.stderr.write(f"parapet replay: {why}\n")
        return 2
    samples = [sample_of(item) for item in items]
    packs = [each.effective.model_copy(update={"enabled": True}) for each in (candidate, baseline)]
    ask = None
    if options.external:
        ask = partial(ask_services, workspace, reader.optional)
    try:
        compared, left_out = compare(packs[0], packs[1], samples, settings, _never, ask)
    except ValueError as why:
        sys.stderr.write(f"parapet replay: {why}\n")
        return 2
    if options.format == "json":
        sys.stdout.write(jsonbody.dumps(told(compared, left_out)).decode() + "\n")
    else:
        sys.stdout.write("\n".join(_lines(packs[0], packs[1], compared, left_out)) + "\n")
    differs = any(each.changed or each.stream_equals_whole is False for each in compared)
    return 1 if differs and options.exit_code else 0


def _never() -> bool:
    return False


# --- packs


def _shelf(
    options: ReplayOptions,
) -> tuple[PackShelf, GuardSettings, Workspace, SecretReader]:
    """The packs of the configuration and the shipped ones, and whose they are."""
    builtin = builtin_packs()
    if options.config is None:
        nobody = Workspace(id=options.workspace)
        return PackShelf({}, builtin), GuardSettings(), nobody, SecretReader(environment())
    loaded = load_config(options.config, insecure=True)
    packs = loaded.packs.get(options.workspace)
    if packs is None:
        raise ReplayFault(f"there is no workspace {options.workspace} in {options.config}")
    own = {name: each for name, each in packs.items() if not each.location.startswith(BUILTIN)}
    (workspace,) = (each for each in loaded.config.workspaces if each.id == options.workspace)
    return PackShelf(own, builtin), loaded.config.guard, workspace, loaded.reader


def _pack(named: str, shelf: PackShelf) -> PackSource:
    """A file, or `id` or `id@version` of a pack that is known.  Raises ReplayFault."""
    file = Path(named)
    source: PackSource | None = None
    if file.suffix in _DOCUMENTS or file.is_file():
        try:
            source = read_pack(file.read_bytes(), named)
        except ConfigError as error:
            raise ReplayFault(problems_as_text(named, error.problems).rstrip()) from None
    else:
        source = shelf.find(named)
    if source is None:
        known = ", ".join(shelf.known())
        raise ReplayFault(f"{named} is neither a file nor a known policy pack; known are {known}")
    own = {**shelf.own, source.pack.policy_pack_id: source}
    settled, problems, _ = settle(PackShelf(own, shelf.builtin), [source])
    if problems:
        raise ReplayFault(problems_as_text(named, problems).rstrip())
    return settled[source.pack.policy_pack_id]


def _baseline(options: ReplayOptions, candidate: PackSource, shelf: PackShelf) -> PackSource:
    if options.baseline is not None:
        return _pack(options.baseline, shelf)
    pack_id = candidate.pack.policy_pack_id
    if shelf.find(pack_id) is None:
        raise ReplayFault(f"no pack {pack_id} is known to compare with; name one by --baseline")
    return _pack(pack_id, shelf)


# --- texts


def _items(options: ReplayOptions) -> Iterator[ReplayItem]:
    """Raises ReplayFault with the first line that is wrong."""
    found = [_item(options, number, line) for number, line in _texts(options)]
    if not found:
        raise ReplayFault(f"{options.texts} holds no text")
    for fault in item_faults(found):
        raise ReplayFault(f"{options.texts}: {fault.field}: {fault.detail}")
    yield from found


def _texts(options: ReplayOptions) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, counted from 1."""
    if str(options.texts) == "-":
        data = sys.stdin.buffer.read(MAX_TEXTS_BYTES + 1)
    else:
        with options.texts.open("rb") as file:
            data = file.read(MAX_TEXTS_BYTES + 1)
    if len(data) > MAX_TEXTS_BYTES:
        raise ReplayFault(f"{options.texts} is larger than {MAX_TEXTS_BYTES >> 20} MiB: split it")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as why:
        raise ReplayFault(f"{options.texts} is not UTF-8: byte {why.start}") from None
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


def _item(options: ReplayOptions, number: int, line: str) -> ReplayItem:
    said: dict[str, Json] = {"id": f"line {number}", "text": line}
    if options.items or options.texts.suffix in _ITEMS:
        said = {"id": said["id"], **_read(options, number, line)}
    said.setdefault("direction", options.direction)
    said.setdefault("part", options.part)
    if options.chunks and said["direction"] == "response" and said["part"] in STREAMED:
        said.setdefault("chunks", list(options.chunks))
    try:
        return ReplayItem.model_validate(said, strict=True)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ReplayFault(f"{options.texts}, line {number}: {where}: {first['msg']}") from None


def _read(options: ReplayOptions, number: int, line: str) -> dict[str, Json]:
    try:
        value = jsonbody.strict_value(line)
    except ValueError as why:
        raise ReplayFault(f"{options.texts}, line {number}: {why}") from None
    if not isinstance(value, dict):
        raise ReplayFault(f"{options.texts}, line {number}: must be an object")
    return value


# --- the table


def _lines(
    candidate: PolicyPack,
    baseline: PolicyPack,
    compared: Sequence[Compared],
    left_out: Sequence[NotReplayed],
) -> Iterator[str]:
    changed = [each for each in compared if each.changed]
    yield f"{_label(candidate)} against {_label(baseline)}"
    yield f"{_count(len(compared), 'text')}, {len(changed)} changed"
    streams = [each for each in compared if each.stream_equals_whole is not None]
    if streams:
        equal = sum(bool(each.stream_equals_whole) for each in streams)
        yield f"in pieces: {equal} of {len(streams)} leave as the whole text does"
        for each in streams:
            if not each.stream_equals_whole:
                yield f"  differs: {each.id}"
    for rule in left_out:
        yield f"NOT REPLAYED: {rule.rule_id}: {_LEFT_OUT[rule.reason].format(texts=rule.texts)}"
    counts = by_rule(compared)
    if counts:
        yield ""
        rows = [
            [
                each.rule_id,
                *map(str, (each.baseline_hits, each.candidate_hits, each.new, each.gone)),
            ]
            for each in counts
        ]
        yield from table(["rule", "before", "now", "new", "gone"], rows)
    if changed:
        yield ""
        rows = [
            [each.id, _said(each.baseline), _said(each.candidate, each)] for each in changed[:SHOWN]
        ]
        yield from table(["changed", "before", "now"], rows)
    if len(changed) > SHOWN:
        yield f"and {len(changed) - SHOWN} more: --format json has all"


def _label(pack: PolicyPack) -> str:
    return f"{pack.policy_pack_id}@{pack.version}"


def _said(opinion: Opinion, beside: Compared | None = None) -> str:
    if opinion.verdict == "pass":
        return "pass"
    said = f"{opinion.verdict}, {opinion.action_taken}"
    if beside is not None and said == _said(beside.baseline):
        return f"{said}, another text"
    return said


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
