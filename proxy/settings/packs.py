"""Policy packs: where each comes from, what `extends` makes of it, whether it compiles.

A workspace's own packs (inline, then files) come before the shipped ones of the same id.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final

from pydantic import ValidationError

from proxy.guardrails.compile import Over, check_pack
from proxy.guardrails.faults import PackFault
from proxy.guardrails.placeholders import undoable
from proxy.model.exchange import Json
from proxy.model.policy import PolicyPack, Rule, holds_answers, reroute_targets
from proxy.model.tenancy import Route
from proxy.runtime.clock import cpu_budget
from proxy.settings.explain import explain
from proxy.settings.problems import ConfigError, Problem
from proxy.settings.problems import Path as Where
from proxy.settings.yamlfile import Tree, parse_yaml

BUILTIN = "builtin:packs/"
KEPT_CHECKS: Final = 1024  # packs that compiled, remembered by their content
COMPILE_S: Final = 2.0  # of computing, whatever else the machine does (guardrails.md §4.1)


@dataclass(frozen=True, slots=True)
class PackSource:
    """A pack and the place it was read from: `builtin:packs/<file>`, a file, or a member.

    `extended` is what its rules are once `extends` is followed: what a route runs.
    """

    pack: PolicyPack
    location: str
    tree: Tree
    at: Where = ()
    extended: PolicyPack | None = None

    @property
    def effective(self) -> PolicyPack:
        return self.extended or self.pack

    def problem(self, below: Where, message: str) -> Problem:
        where = (*self.at, *below)
        return Problem(where, message, self.tree.name, self.tree.line_of(where))


@dataclass(slots=True)
class PackShelf:
    """The packs that the routes of one workspace may name."""

    own: dict[str, PackSource] = field(default_factory=dict)
    builtin: dict[str, PackSource] = field(default_factory=dict)

    def find(self, reference: str) -> PackSource | None:
        """`id` or `id@version`."""
        pack_id, _, version = reference.partition("@")
        for shelf in (self.own, self.builtin):
            found = shelf.get(pack_id)
            if found and version in ("", found.pack.version):
                return found
        return None

    def known(self) -> list[str]:
        return sorted({*self.own, *self.builtin})


def find_pack(packs: Mapping[str, PackSource], reference: str) -> PackSource | None:
    """What `id` or `id@version` means."""
    pack_id, _, version = reference.partition("@")
    found = packs.get(pack_id)
    if found is not None and version in ("", found.pack.version):
        return found
    return packs.get(reference)


def misfit(pack: PolicyPack, route: Route, endpoints: Collection[str]) -> str:
    """Why a route cannot have the pack (guardrails.md §3.2); empty when it can."""
    for rule in pack.rules:
        for target in reroute_targets(rule.config):
            if target not in endpoints:
                return f"reroutes to endpoint {target}, which is not there"
    for _, why in clashes(pack, route):
        return why
    return ""


def clashes(pack: PolicyPack, route: Route) -> Iterator[tuple[Rule, str]]:
    """The rules of the pack that cannot be enforced on the route as it is, each with the reason."""
    for rule in pack.rules:
        if holds_answers(pack, rule) and route.stream_recovery == "resume":
            yield rule, "judges whole answers and needs stream_recovery: buffer or off"


def whole_pack(source: PackSource, shelf: PackShelf) -> PolicyPack | None:
    """The pack with what it extends; None when that makes no valid pack.  It is not compiled."""
    try:
        return _extended(source, shelf, ()) or source.pack
    except (ConfigError, ValidationError):
        return None


def read_pack(data: bytes, location: str) -> PackSource:
    """One pack from a file of its own.  Raises ConfigError."""
    tree = parse_yaml(data, location)
    try:
        return PackSource(PolicyPack.model_validate(tree.value), location, tree)
    except ValidationError as error:
        told = explain(error, tree.value, PolicyPack)
        raise ConfigError(
            [each.located(location, tree.line_of(each.path)) for each in told]
        ) from None


def builtin_packs() -> dict[str, PackSource]:
    """The packs that are shipped, by id."""
    return dict(_shipped())


@cache
def _shipped() -> Mapping[str, PackSource]:
    """Read once: the files of a running program do not change."""
    shelf: dict[str, PackSource] = {}
    folder = resources.files("proxy").joinpath("packs")
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(".yaml"):
            location = BUILTIN + item.name
            source = read_pack(item.read_bytes(), location)
            shelf[source.pack.policy_pack_id] = source
    return shelf


class Checks:
    """Which packs compile: one that did is not compiled again to see it, at most `limit` of them.

    Any thread may ask."""

    def __init__(self, limit: int = KEPT_CHECKS) -> None:
        self._limit = limit
        self._warnings: dict[bytes, list[PackFault]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Checks {len(self._warnings)} packs>"

    def of(self, pack: PolicyPack, over: Over | None) -> tuple[list[PackFault], list[PackFault]]:
        """The faults and the warnings of `check_pack`."""
        content = hashlib.sha256(pack.model_dump_json().encode()).digest()
        known = self._warnings.get(content)
        if known is not None:
            return [], known
        faults, warnings = check_pack(pack) if over is None else check_pack(pack, over=over)
        if not faults:
            with self._lock:
                if len(self._warnings) >= self._limit:
                    del self._warnings[next(iter(self._warnings))]
                self._warnings[content] = warnings
        return faults, warnings


_CHECKS: Final = Checks()


def checked(pack: PolicyPack, over: Over | None = None) -> tuple[list[PackFault], list[PackFault]]:
    """The faults that refuse the pack, and the warnings that come with it; see `check_pack`."""
    return _CHECKS.of(pack, over)


def compile_budget() -> Over:
    """Whether one pack, from now on, has taken the time to compile that any pack may take."""
    return cpu_budget(COMPILE_S)


def unbounded() -> None:
    """For packs that were within the time when they were written."""


def settle(
    shelf: PackShelf,
    wanted: Sequence[PackSource],
    budget: Callable[[], Over | None] = compile_budget,
) -> tuple[dict[str, PackSource], list[Problem], list[Problem]]:
    """Follow `extends` and compile each wanted pack: (by id, problems, warnings).

    `budget`: what each of them may take."""
    settled: dict[str, PackSource] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for source in wanted:
        try:
            whole = PackSource(
                source.pack, source.location, source.tree, source.at, _extended(source, shelf, ())
            )
        except ConfigError as error:
            problems += error.problems
            continue
        except ValidationError as error:
            told = error.errors(include_url=False, include_input=False)[0]["msg"]
            problems.append(source.problem(("extends",), f"makes a pack that is not valid: {told}"))
            continue
        faults, odd = checked(whole.effective, budget())
        problems += [_told(whole, each.field, each.message, each.position) for each in faults]
        warnings += [_told(whole, each.field, each.message, each.position) for each in odd]
        settled[source.pack.policy_pack_id] = whole
    return settled, problems, warnings


def _told(source: PackSource, where: str, message: str, position: int | None) -> Problem:
    if position is not None:
        message = f"{message} (at character {position})"
    path = tuple(path_of(where))
    if source.extended is not None and len(path) > 1 and path[0] == "rules":
        path, message = _own_rule(source, path, message)
    return source.problem(path, message)


def _own_rule(source: PackSource, path: Where, message: str) -> tuple[Where, str]:
    """The rule's place in the pack that was written, not in what `extends` made of it."""
    rule_id = source.effective.rules[int(path[1])].rule_id
    for index, rule in enumerate(source.pack.rules):
        if rule.rule_id == rule_id:
            return ("rules", index, *path[2:]), message
    return ("extends",), f"rule {rule_id}: {message}"


def path_of(text: str) -> Iterator[str | int]:
    """`rules[3].pattern` as a path."""
    for part in text.split("."):
        name, *indexes = part.split("[")
        if name:
            yield name
        for index in indexes:
            number = index.rstrip("]")
            yield int(number) if number.isdigit() else number


def _extended(source: PackSource, shelf: PackShelf, above: tuple[str, ...]) -> PolicyPack | None:
    """The pack with what it extends; None when it extends nothing.  Raises ConfigError."""
    pack = source.pack
    if pack.extends is None:
        return None
    if pack.policy_pack_id in above:
        raise ConfigError([source.problem(("extends",), "extends itself in a ring")])
    base = shelf.find(pack.extends)
    if base is not None and base.pack is pack:  # a pack may extend the shipped one of its own id
        base = shelf.builtin.get(pack.policy_pack_id)
    if base is None or base.pack is pack:
        known = ", ".join(shelf.known())
        message = f"no pack {pack.extends}; known are {known}"
        raise ConfigError([source.problem(("extends",), message)])
    whole = _extended(base, shelf, (*above, pack.policy_pack_id)) or base.pack
    return merge_packs(whole, pack)


def merge_packs(base: PolicyPack, child: PolicyPack) -> PolicyPack:
    """Rules of the same `rule_id` are merged member by member, others are added; what the child
    does not say, the base says, but for a `reversible` of the base that has no sense in the child.
    Id and version are the child's."""
    merged: dict[str, Json] = _said(base)
    merged |= _said(child)
    merged["policy_pack_id"], merged["version"] = child.policy_pack_id, child.version
    merged.pop("extends", None)
    rules = {rule.rule_id: _said(rule) for rule in base.rules}
    for rule in child.rules:
        rules[rule.rule_id] = rules.get(rule.rule_id, {}) | _said(rule)
    own = {rule.rule_id for rule in child.rules if rule.reversible}
    for rule_id, said in rules.items():
        if said.get("reversible") and rule_id not in own and not _undoable(said, merged):
            del said["reversible"]
    merged["rules"] = list(rules.values())
    merged["lists"] = {name: list(terms) for name, terms in (base.lists | child.lists).items()}
    return PolicyPack.model_validate(merged)


def _undoable(rule: Mapping[str, Json], pack: Mapping[str, Json]) -> bool:
    action = rule.get("action") or pack.get("default_action")
    scope = rule.get("scope") or pack.get("scope")
    direction = scope.get("direction") if isinstance(scope, dict) else None
    return undoable(str(action), str(direction))


def _said(document: PolicyPack | Rule) -> dict[str, Json]:
    """The members that were written."""
    return document.model_dump(mode="json", exclude_unset=True)
