"""The documents of a shared store that were known last, for a start while the store is away.

They are kept beside the snapshot and laid under the file of the day as those of the store are; the
snapshot itself would bring back what was taken out of the file meanwhile.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from proxy.model.exchange import Json
from proxy.settings.files import ensure_directory, replace_file
from proxy.wire import jsonbody

FILE: Final = "documents.json"  # under state_dir
Known = dict[tuple[str, str], list[tuple[str, dict[str, Json]]]]


class _File(BaseModel):
    """What the file holds: documents by workspace and kind."""

    format: Literal[1]
    store: str
    documents: list[tuple[str, str, list[tuple[str, dict[str, Any]]]]]


def tag_of(store: str, server_key: bytes) -> str:
    """Names a store without showing its URL, which may hold a password."""
    return hmac.new(server_key, store.encode(), hashlib.sha256).hexdigest()[:32]


def keep_documents(
    state_dir: Path,
    tag: str,
    documents: Mapping[tuple[str, str], Sequence[tuple[str, dict[str, Json]]]],
) -> None:
    """Write them, whole or not at all, readable to the owner only.  Raises OSError."""
    ensure_directory(state_dir)
    rows = [(workspace_id, kind, found) for (workspace_id, kind), found in documents.items()]
    whole = {"format": 1, "store": tag, "documents": rows}
    replace_file(state_dir / FILE, jsonbody.dumps(whole))


def known_documents(state_dir: Path, tag: str) -> Known | None:
    """Those of this store; None: nothing is known of it, or nothing that can be read."""
    try:
        file = _File.model_validate_json((state_dir / FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    if file.store != tag:
        return None
    return {(workspace_id, kind): found for workspace_id, kind, found in file.documents}
