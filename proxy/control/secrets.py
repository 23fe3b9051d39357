"""Write-only members: what is shown of them, and what a client may refer to (control-api.md §9).

A secret is a literal or a reference.  References are shown as they are, literals as a mask with a
fingerprint beside it; the mask sent back means "keep".

SECURITY: a reference that comes through the API is fenced, or whoever may write a document could
read any variable and file of the process out through a header of his webhook.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from proxy.control.problems import FieldError
from proxy.control.validation import field_of, pointer_of
from proxy.model.exchange import Json
from proxy.settings.schema import Control

MASK: Final = "***"
EACH: Final = "*"  # a step of a path: every member
_PORTS: Final = {"https": 443, "http": 80}
_FINGERPRINT: Final = "_fingerprint"
Object = dict[str, Json]
Path = tuple[str, ...]


def mask(secret: str) -> str:
    """`***`, or of a URL its scheme and host."""
    parts = urlsplit(secret) if "://" in secret else None
    if parts is None or not parts.hostname:
        return MASK
    return f"{parts.scheme}://{parts.hostname}/{MASK}"


def masked(doc: Object, paths: Iterable[Path], key: bytes) -> Object:
    """What may be shown."""
    shown = deepcopy(doc)
    for path in paths:
        for holder, name, _ in _located(shown, [path]):
            value = holder[name]
            if not isinstance(value, str):
                continue
            holder[name] = mask(value)
            if path[-1] != EACH:  # beside names that are not ours it could be taken for one
                digest = hmac.digest(key, value.encode("utf-8", "replace"), hashlib.sha256)
                holder[name + _FINGERPRINT] = digest.hex()[:8]
    return shown


def unmasked(sent: Object, old: Object, paths: Iterable[Path]) -> Object:
    """What was sent, with the old secret where its mask came back, and without fingerprints."""
    meant = deepcopy(sent)
    known = dict(_values(old, paths))
    for path in paths:
        for holder, name, where in _located(meant, [path]):
            before = known.get(where)
            if isinstance(before, str) and holder[name] == mask(before):
                holder[name] = before
            if path[-1] != EACH:
                holder.pop(name + _FINGERPRINT, None)
    return meant


def refused(doc: Object, paths: Iterable[Path], control: Control) -> Iterator[FieldError]:
    """Masks with nothing behind them, references beyond the fence."""
    for where, value in _values(doc, paths):
        if isinstance(value, str):
            if value == MASK or value.endswith("/" + MASK):
                yield _at(where, "masked_secret", "is a mask: send the secret itself")
        elif isinstance(value, dict):
            name, path = value.get("$env"), value.get("$file")
            if isinstance(name, str) and not name.startswith(control.secret_env_prefix):
                prefix = control.secret_env_prefix
                yield _at(where, "forbidden_reference", f"must name a variable {prefix}…")
            if isinstance(path, str) and not inside(path):
                place = control.secrets_dir
                yield _at(where, "forbidden_reference", f"must name a file in {place}")


def strayed(
    doc: Object, sent: Object, old: Object, bound: Iterable[tuple[Path, tuple[Path, ...]]]
) -> Iterator[FieldError]:
    """Secrets that are only kept, while the place that they are sent to becomes another one.

    SECURITY: else whoever may write a document, and was never shown its secrets, could have them
    sent to himself.
    """
    for destination, paths in bound:
        there, before = _at_path(doc, destination), _at_path(old, destination)
        if _host(there) == _host(before):
            continue
        known = dict(_values(old, paths))
        told = dict(_values(sent, paths))
        for where, value in _values(doc, paths):
            kept = isinstance(value, str) and known.get(where) == value
            if kept and told.get(where) != value:
                pointer = pointer_of(where if where in told else destination)
                place = field_of(destination)
                detail = f"{place} is another host now: send the secret again"
                yield FieldError("masked_secret", detail, field_of(where), pointer)


def _at_path(doc: Json, path: Path) -> Json:
    for step in path:
        doc = doc.get(step) if isinstance(doc, dict) else None
    return doc


def _host(destination: Json) -> Json:
    """Host and port of a URL, or the host itself; a reference is what it is."""
    if not isinstance(destination, str):
        return destination
    try:
        parts = urlsplit(destination)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return destination
    return [parts.scheme, parts.hostname, port] if parts.hostname else destination.lower()


def inside(path: str) -> bool:
    """It is a relative name that stays in its directory."""
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and "\0" not in path


def _at(where: Path, code: str, detail: str) -> FieldError:
    return FieldError(code, detail, field_of(where), pointer_of(where))


def _values(doc: Object, paths: Iterable[Path]) -> Iterator[tuple[Path, Json]]:
    for holder, name, where in _located(doc, paths):
        yield where, holder[name]


def _children(holder: Json, step: str) -> list[tuple[str, Json]]:
    if isinstance(holder, list) and step == EACH:
        return [(str(place), item) for place, item in enumerate(holder)]
    return [(step, holder[step])] if isinstance(holder, dict) and step in holder else []


def _located(doc: Object, paths: Iterable[Path]) -> list[tuple[Object, str, Path]]:
    """(the object that holds it, its name there, its whole path) of each secret that is there."""
    places: list[tuple[Object, str, Path]] = []
    for path in paths:
        found: list[tuple[Json, Path]] = [(doc, ())]
        for step in path[:-1]:
            found = [
                (child, (*where, name))
                for holder, where in found
                for name, child in _children(holder, step)
            ]
        for holder, where in found:
            if not isinstance(holder, dict):
                continue
            names = [*holder] if path[-1] == EACH else [path[-1]] if path[-1] in holder else []
            places += [(holder, name, (*where, name)) for name in names if holder[name] is not None]
    return places
