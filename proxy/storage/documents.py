"""Documents that we write and clients read, in the form in which the control API lists them."""

from proxy.model.batch import ABSENT, Put
from proxy.model.exchange import Json
from proxy.wire import jsonbody


def document(kind: str, doc_id: str, said: Json, at_ms: int, expect: int = ABSENT) -> Put:
    """A new document that we write and clients read: a correlation, an alert, a
    digest, a dead letter.  `at_ms` is when it came to be."""
    kept: Json = {"said": said, "created_at": at_ms, "updated_at": at_ms}
    return Put(kind, doc_id, jsonbody.dumps(kept), expect)
