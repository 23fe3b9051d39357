"""Signatures against golden vectors: path, query, token, port, folded spaces, empty body."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.wire.providers.sigv4 import AwsKeys, signature_headers
from tests.wire.streams import GOLDEN

VECTORS = json.loads((GOLDEN / "sigv4.json").read_bytes())
AT = datetime.strptime(VECTORS["x_amz_date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=[c["name"] for c in VECTORS["cases"]])
def test_the_signature_is_the_golden_one(case: dict[str, Any]) -> None:
    keys = AwsKeys(
        VECTORS["access_key_id"], VECTORS["secret_access_key"], case.get("session_token")
    )
    got = signature_headers(
        case["method"],
        case["url"],
        case["headers"],
        case["body"].encode(),
        keys=keys,
        region=VECTORS["region"],
        service=case["service"],
        now_ms=int(AT.timestamp() * 1000),
    )
    assert got["authorization"] == case["authorization"]
    assert got["x-amz-date"] == VECTORS["x_amz_date"]
    assert got.get("x-amz-security-token") == case.get("session_token")


def test_the_secret_is_in_no_repr() -> None:
    assert "hush" not in repr(AwsKeys("id", "hush", "hush-token"))
