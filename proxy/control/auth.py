"""Who is calling: the admin key and the keys of the configuration (control-api.md §2).

Every check costs the same, whatever is wrong with the key: one digest of the whole credential
against the admin key, one digest of the secret against the stored one or a dummy.
"""

import hashlib
import hmac
import re
from typing import Final

from aiohttp import web

from proxy.control.config import ADMIN, ControlConfig, KnownKey, Principal
from proxy.control.problems import Problem, retry_later
from proxy.storage.coord import Buckets

FAILURES_PER_MINUTE: Final = 20
_KEY: Final = re.compile(r"ppt_([A-Za-z0-9]{4,64})_([A-Za-z0-9]{16,256})", re.ASCII)
_NOBODY: Final = Principal("", "", None, frozenset(), frozenset(), expires_ms=0)
_DUMMY: Final = hashlib.sha256(b"no key has this digest").digest()
_UNKNOWN: Final = KnownKey(_DUMMY, _NOBODY)


def verify(config: ControlConfig, credential: str, now_ms: int) -> Principal | None:
    """The owner of a credential, None when it is malformed, unknown, wrong or expired."""
    whole = hashlib.sha256(credential.encode(errors="surrogateescape")).digest()
    # SECURITY: all comparisons always run, and none looks at the secret byte by byte.
    is_admin = hmac.compare_digest(whole, config.admin_digest or _DUMMY)
    found = _KEY.fullmatch(credential)
    key_id, secret = found.groups() if found else ("", "")
    key = config.keys.get(key_id, _UNKNOWN)
    principal, shown = key.principal, hashlib.sha256(secret.encode()).digest()
    right = hmac.compare_digest(shown, key.digest)
    before = hmac.compare_digest(shown, key.previous or _DUMMY)
    right = right or (before and key.previous is not None and now_ms < key.previous_until_ms)
    if is_admin and config.admin_digest is not None:
        return ADMIN
    if not right or (principal.expires_ms is not None and principal.expires_ms <= now_ms):
        return None
    return principal


def still_admitted(
    principal: Principal, before: ControlConfig, config: ControlConfig, now_ms: int
) -> bool:
    """Whether the credential that made him `principal` under `before` would still do so: for what
    outlives its request.  A changed secret is another credential, changed rights another owner."""
    if principal is ADMIN:
        return before.admin_digest == config.admin_digest
    if principal.expires_ms is not None and principal.expires_ms <= now_ms:
        return False
    return config.keys.get(principal.key_id) == before.keys.get(principal.key_id)


def credential_of(request: web.BaseRequest) -> str | None:
    """What stands in `Authorization`; None: nothing.  Raises Problem when it stands there twice."""
    values = request.headers.getall("Authorization", [])
    if len(values) > 1:
        raise Problem("invalid-header", "more than one Authorization header")
    return values[0] if values else None


def authenticate(
    request: web.BaseRequest, address: str, config: ControlConfig, failures: Buckets, now_ms: int
) -> Principal:
    """Raises Problem 401, or 429 after too many failures from one address."""
    header = credential_of(request)
    if header is not None:
        scheme, _, credential = header.partition(" ")
        principal = verify(config, credential.strip(), now_ms)
        if principal is not None and scheme.lower() == "bearer":
            return principal
    quota = failures.take("auth", address, FAILURES_PER_MINUTE)
    if not quota.allowed:
        raise retry_later("quota-exceeded", "too many failed authentications", max(1, quota.wait_s))
    challenge = 'Bearer realm="control"'
    if header is not None:
        challenge += ', error="invalid_token"'
    raise Problem("unauthenticated", headers={"WWW-Authenticate": challenge})
