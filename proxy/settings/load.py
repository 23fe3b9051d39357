"""From the file to a `Loaded` configuration, or to every problem that it has.

The shape is judged first; what is left when the faulty members are set aside is judged for
references and rules too, so that one run of `parapet check` says all there is to say.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from proxy.model.exchange import Json
from proxy.model.policy import reroute_targets
from proxy.model.tenancy import Price
from proxy.settings.crosscheck import crosscheck
from proxy.settings.explain import explain, step_into
from proxy.settings.packs import (
    PackShelf,
    PackSource,
    builtin_packs,
    find_pack,
    misfit,
    read_pack,
    settle,
)
from proxy.settings.prices import read_prices
from proxy.settings.problems import ConfigError, Problem
from proxy.settings.problems import Path as Where
from proxy.settings.risks import risks
from proxy.settings.schema import ADMIN_KEY_CHARS, Config, Workspace
from proxy.settings.secrets import SecretFault, SecretReader, environment, secret_values, secrets_in
from proxy.settings.yamlfile import MAX_FILE_BYTES, Tree, parse_yaml

_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used.

    `files` are those that it was read from: a change of one is a reason to reload.  `sha256` is
    over their bytes.  `packs`: by workspace id, then pack id, those that routes name.  `unusable`:
    by workspace id, then route id, why a route can serve nobody.
    """

    config: Config
    path: Path
    files: tuple[Path, ...]
    sha256: str
    warnings: tuple[Problem, ...] = ()
    packs: Mapping[str, Mapping[str, PackSource]] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    price_version: str = ""
    unusable: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reader: SecretReader = field(default_factory=lambda: SecretReader({}))

    @property
    def base(self) -> Path:
        """Where relative file names of the configuration start."""
        return self.path.parent

    @property
    def admin_key(self) -> str | None:
        return self.reader.optional(self.config.server.admin_key)

    def known_secrets(self) -> tuple[str, ...]:
        """Every value that must never be shown, longest first."""
        values = secret_values([self.config], self.reader)
        return tuple(sorted(values, key=len, reverse=True))


def load_config(
    path: Path, environ: Mapping[str, str] | None = None, *, insecure: bool = False
) -> Loaded:
    """Read and judge the whole configuration.  Raises ConfigError with everything that is wrong.

    `insecure` lets a listener be reachable from outside without keys.
    """
    return _Loading(path, environment() if environ is None else environ).load(insecure=insecure)


class _Loading:
    """One run: what was read so far, and what was found to be wrong."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path.absolute()
        self._reader = SecretReader(environ, self._path.parent)
        self._digest = hashlib.sha256()
        self._files: list[Path] = []
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def load(self, *, insecure: bool) -> Loaded:
        tree = parse_yaml(self._read(self._path, ()), self._path.name)
        if tree.value is None:
            tree.value = {}
        config = self._shaped(tree)
        packs: dict[str, Mapping[str, PackSource]] = {}
        prices: dict[str, Price] = {}
        version = ""
        if config is not None:
            self._problems += crosscheck(config)
            packs = self._packs(config, tree)
            self._secrets(config)
            prices, version = self._prices(config)
            if not insecure:
                self._exposure(config)
        if self._problems:
            raise ConfigError([self._located(each, tree) for each in self._in_order(tree)])
        assert config is not None, "a configuration without problems has a shape"
        self._warnings += risks(config)
        return Loaded(
            config=config,
            path=self._path,
            files=tuple(self._files),
            sha256=self._digest.hexdigest(),
            warnings=tuple(self._located(each, tree) for each in self._warnings),
            packs=packs,
            prices=prices,
            price_version=version,
            reader=self._reader,
        )

    def _read(self, path: Path, where: Where) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL
            reason = (getattr(error, "strerror", None) or "cannot be read").lower()
            raise ConfigError([Problem(where, f"{path}: {reason}")]) from None
        self._files.append(path)
        self._digest.update(len(data).to_bytes(8, "big") + data)
        return data

    def _located(self, problem: Problem, tree: Tree) -> Problem:
        return problem.located(tree.name, tree.line_of(problem.path))

    def _in_order(self, tree: Tree) -> list[Problem]:
        """Once each, from the top of the file to its end."""
        unique = list(dict.fromkeys(self._problems))
        return sorted(unique, key=lambda each: (each.file, self._located(each, tree).line or 0))

    def _shaped(self, tree: Tree) -> Config | None:
        """The typed configuration; with faults, what is left of it when they are set aside."""
        value = copy.deepcopy(tree.value)
        for _ in range(_ROUNDS):
            try:
                return Config.model_validate(value)
            except ValidationError as error:
                found = explain(error, value, Config)
                told = [problem.path for problem in self._problems]
                self._problems += [each for each in found if not _told_below(each.path, told)]
                if not _set_aside(value, [each.path for each in found]):
                    return None
        return None

    def _packs(self, config: Config, tree: Tree) -> dict[str, Mapping[str, PackSource]]:
        builtin: dict[str, PackSource] = {}
        try:
            builtin = builtin_packs()
        except ConfigError as error:
            self._problems += error.problems
        packs: dict[str, Mapping[str, PackSource]] = {}
        for index, workspace in enumerate(config.workspaces):
            at: Where = ("workspaces", index)
            shelf = PackShelf(self._own_packs(workspace, tree, at), builtin)
            wanted = dict.fromkeys(shelf.own)
            for number, route in enumerate(workspace.routes):
                for place, reference in enumerate(route.policy_packs):
                    source = shelf.find(reference)
                    if source is not None:
                        wanted[source.pack.policy_pack_id] = None
                        continue
                    known = ", ".join(shelf.known()) or "none"
                    where = (*at, "routes", number, "policy_packs", place)
                    message = f"no policy pack {reference}; known are {known}"
                    self._problems.append(Problem(where, message))
            sources = [shelf.own.get(name) or builtin[name] for name in wanted]
            settled, problems, warnings = settle(shelf, sources)
            self._problems += problems
            self._warnings += warnings
            packs[workspace.id] = settled
            self._misfits(workspace, settled, at)
        return packs

    def _misfits(self, workspace: Workspace, settled: Mapping[str, PackSource], at: Where) -> None:
        known = {endpoint.id for endpoint in workspace.endpoints}
        for pack in workspace.policies:  # what they say themselves is told where it stands
            for rule in pack.rules:
                known.update(reroute_targets(rule.config))
        for number, route in enumerate(workspace.routes):
            for place, reference in enumerate(route.policy_packs):
                source = find_pack(settled, reference)
                why = misfit(source.effective, route, known) if source is not None else ""
                if why:
                    where = (*at, "routes", number, "policy_packs", place)
                    self._problems.append(Problem(where, f"{reference} {why}"))

    def _own_packs(self, workspace: Workspace, tree: Tree, at: Where) -> dict[str, PackSource]:
        own: dict[str, PackSource] = {}
        for index, pack in enumerate(workspace.policies):
            where = (*at, "policies", index)
            location = f"{self._path.name}#/" + "/".join(str(part) for part in where)
            own.setdefault(pack.policy_pack_id, PackSource(pack, location, tree, where))
        for index, name in enumerate(workspace.policy_files):
            where = (*at, "policy_files", index)
            try:
                source = read_pack(self._read(self._path.parent / name, where), name)
            except ConfigError as error:
                self._problems += error.problems
                continue
            pack_id = source.pack.policy_pack_id
            if pack_id in own:
                message = f"pack {pack_id} is there already ({own[pack_id].location})"
                self._problems.append(Problem(where, message))
            own.setdefault(pack_id, source)
        return own

    def _secrets(self, config: Config) -> None:
        """Every reference must lead somewhere; an unset key of an endpoint only loses it."""
        for where, secret in secrets_in(config):
            try:
                value = self._reader.value(secret)
            except SecretFault as fault:
                if fault.unset and (where == ("server", "admin_key") or _is_endpoint_key(where)):
                    absent = "the caller's own key goes through"
                    if where[0] == "server":
                        absent = "a key is made in state_dir/admin.key on first start"
                    self._warnings.append(Problem(where, f"{fault}; {absent}"))
                else:
                    self._problems.append(Problem(where, str(fault)))
                continue
            if where == ("server", "admin_key") and len(value) < ADMIN_KEY_CHARS:
                message = f"must have at least {ADMIN_KEY_CHARS} characters"
                self._problems.append(Problem(where, message))

    def _prices(self, config: Config) -> tuple[dict[str, Price], str]:
        name = config.pricing.file
        where: Where = ("pricing", "file")
        try:
            own = self._read(self._path.parent / name, where) if name else None
            return read_prices(own, name or "")
        except ConfigError as error:
            self._problems += error.problems
            return {}, ""

    def _exposure(self, config: Config) -> None:
        """SECURITY: nothing that needs no key may be reachable from another machine."""
        server = config.server
        say = "; --insecure overrides this"
        if not server.data_address.loopback and server.data_auth == "open":
            message = f"{server.listen} is reachable from outside while data_auth is open"
            self._problems.append(Problem(("server", "listen"), message + say))
        keyed = any(
            key.role not in ("app", "ingest", None) or key.scopes
            for workspace in config.workspaces
            for key in workspace.keys
        )
        if server.control_address.loopback or keyed:
            return
        try:
            admin_key = self._reader.optional(server.admin_key)
        except SecretFault:
            return  # told already
        if admin_key is None:
            message = f"{server.control_listen} is reachable from outside and no key is configured"
            self._problems.append(Problem(("server", "control_listen"), message + say))


def _is_endpoint_key(where: Where) -> bool:
    return len(where) == 5 and where[2] == "endpoints" and where[4] == "api_key"


def _told_below(path: Where, told: list[Where]) -> bool:
    """What setting a member aside makes wrong around it is no news."""
    return any(each[: len(path)] == path for each in told)


def _set_aside(value: Json, paths: list[Where]) -> bool:
    """Take the faulty members out of their mappings; False when one cannot be taken out."""
    for path in paths:
        here = value
        for part in path[:-1]:
            there, here = step_into(here, part)
            if not there:
                return False
        if not path or not isinstance(here, dict) or path[-1] not in here:
            return False
        del here[str(path[-1])]
    return True
