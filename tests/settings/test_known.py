"""The documents that were known last, kept for a start while the store is away."""

import stat
from pathlib import Path

import pytest

from proxy.settings.known import FILE, keep_documents, known_documents, tag_of
from proxy.settings.known import Known as Documents

STORE = tag_of("redis://:secret@there:6379/0", b"k" * 32)
DOCUMENTS: Documents = {
    ("default", "route"): [("new", {"id": "new", "endpoint": "main", "n": 1.5, "of": [None]})],
    ("_server", "key"): [],
}


def test_what_was_kept_is_known_again_to_its_owner_only(tmp_path: Path) -> None:
    keep_documents(tmp_path, STORE, DOCUMENTS)
    assert known_documents(tmp_path, STORE) == DOCUMENTS
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert "secret" not in (tmp_path / FILE).read_text()


def test_nothing_is_known_of_another_store(tmp_path: Path) -> None:
    keep_documents(tmp_path, STORE, DOCUMENTS)
    assert known_documents(tmp_path, tag_of("redis://elsewhere:6379/0", b"k" * 32)) is None


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"[]", b'{"format":2,"store":"x","documents":[]}',
     b'{"format":1,"store":"x","documents":[["w","k",[["id",1]]]]}'],
    ids=["absent", "empty", "torn", "no object", "another format", "no document"],
)  # fmt: skip
def test_what_cannot_be_read_is_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    assert known_documents(tmp_path, "x") is None
