"""Any JSON whatever: read or refused with places that exist, never an exception of ours."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control.incoming import Family, Reader
from proxy.model.exchange import Json
from proxy.wire import jsonbody
from tests.control.world import CHANGE, EVENT

NAMES = st.sampled_from(
    [*EVENT, *CHANGE, "payload", "tokens", "cost", "user_id", "severity", "type", "ext", "a/~b"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["2024-03-15T14:30:00Z", "high", "runtime.x", "watcher.pricing.change"])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)
EVENTS = VALUES | st.dictionaries(NAMES, VALUES).map(
    lambda more: {**EVENT, "provider": "p", "change_id": "c", "classification": "other", **more}
)


def _there(pointer: str, body: Any) -> bool:
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")[1:]]
    for place, part in enumerate(parts):
        if isinstance(body, list):
            body = body[int(part)]
        elif part in body:
            body = body[part]
        else:
            return place == len(parts) - 1  # a missing member: its parent is there
    return True


@pytest.mark.thorough
@settings(max_examples=400, deadline=None)
@given(EVENTS, st.sampled_from(["runtime", "change"]))
def test_any_event(item: Json, family: Family) -> None:
    reader = Reader(family, "default", frozenset(), b"k" * 32, 1_710_513_000_000)
    found = reader.read(0, item, ("events", 0))
    if found.event is None:
        assert found.errors
        body: Json = {"events": [item]}
        assert all(_there(error.pointer or "", body) for error in found.errors)
    else:
        assert not found.errors
        assert jsonbody.dumps(found.event.body)
        assert "user_id" not in found.event.body["payload"]  # type: ignore[operator]
        again = reader.read(0, item, ("events", 0))
        assert again.event is not None
        assert again.event.content_hash == found.event.content_hash
