"""AWS Signature Version 4, as the Bedrock services want it (wire.md §11.2).

The path is signed as it is sent, encoded once more; the body's hash is in the signature only.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Credentials of an account."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def signature_headers(
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes,
    *,
    keys: AwsKeys,
    region: str,
    service: str,
    now_ms: int,
) -> dict[str, str]:
    """The headers that a request needs besides `headers` (lower-case names, all of them signed):
    `x-amz-date`, the token where there is one, `authorization`.  `url` is the target as it is sent.
    """
    target = urlsplit(url)
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": stamp}
    if keys.session_token:
        added["x-amz-security-token"] = keys.session_token
    signed = {name: " ".join(value.split()) for name, value in headers.items()}
    signed |= {"host": target.netloc, **added}
    names = sorted(signed)
    asked = sorted(part.partition("=") for part in target.query.split("&") if part)
    canonical = "\n".join(
        (
            method,
            quote(target.path or "/", safe="/~"),
            "&".join(f"{name}={value}" for name, _, value in asked),
            "".join(f"{name}:{signed[name]}\n" for name in names),
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join((_ALGORITHM, stamp, scope, digest))
    key = ("AWS4" + keys.secret_access_key).encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    added["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key_id}/{scope}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return added
