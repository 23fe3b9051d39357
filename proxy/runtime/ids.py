"""New identifiers: ULIDs whose random part is drawn once per millisecond and then counted up, so
that no request pays for randomness and ids of one process sort by time."""

import os
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def encode_ulid(value: int) -> str:
    """128 bits as 26 characters of Crockford's base 32, lower case."""
    pairs = _PAIRS
    return "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)])


class UlidIds:
    """`model.ports.Ids`: prefix + ULID.  Unique between processes by 80 random bits per tick."""

    def __init__(self) -> None:
        self._at_ms = 0
        self._random = 0

    def new(self, prefix: str) -> str:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > self._at_ms:
            self._at_ms = now_ms
            self._random = int.from_bytes(os.urandom(10), "big") >> 1  # room to count up
        else:
            self._random += 1
        return prefix + encode_ulid(self._at_ms << 80 | self._random)


def base62(length: int) -> str:
    """Random text of `length` characters of base 62, for secrets."""
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def fraction() -> float:
    """A random number in [0, 1), for jitter."""
    return secrets.randbelow(1 << 30) / (1 << 30)


def random_bytes(count: int) -> bytes:
    return secrets.token_bytes(count)
