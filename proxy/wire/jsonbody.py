"""JSON in and out: the only module that knows orjson and json.

`loads` is orjson's: UTF-8 only, no NaN, integers beyond 64 bits become floats, of duplicate members
the last one wins.  Where that matters (guarded bodies, spliced bodies) use the strict pass.
"""

from typing import Any, cast

import orjson

from proxy.model.exchange import Json

JsonError = orjson.JSONDecodeError


def loads(data: bytes | str | memoryview) -> Json:
    """Parse.  Raises JsonError (a ValueError) with the position."""
    return cast(Json, orjson.loads(data))


def dumps(value: Any) -> bytes:
    """Compact JSON.  Dataclasses and str enums are written as what they are."""
    return orjson.dumps(value)


def dumps_sorted(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
