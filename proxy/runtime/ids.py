"""New identifiers: ULIDs whose random part is drawn once per millisecond and then counted up, so
that no request pays for randomness and ids of one process sort by time."""

import secrets
from random import Random
from time import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_COUNTED = 1 << 20  # the last four characters


def encode_ulid(value: int) -> str:
    """128 bits as 26 characters of Crockford's base 32, lower case."""
    pairs = _PAIRS
    return "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)])


class UlidIds:
    """`model.ports.Ids`: prefix + ULID.  Unique between processes by 60 random bits per tick; the
    last 20 bits count up within it."""

    def __init__(self) -> None:
        self._at_ms = 0
        self._head = ""
        self._count = 0
        # no secret; to ask the kernel each millisecond would let other threads take our turn
        self._random = Random(secrets.randbits(256))  # noqa: S311

    def new(self, prefix: str) -> str:
        now_ms = int(time() * 1000)
        if now_ms > self._at_ms or self._count >= _COUNTED - 1:
            self._at_ms = now_ms = max(now_ms, self._at_ms + 1)
            random = self._random.getrandbits(80)
            self._head = encode_ulid(now_ms << 80 | random)[:22]
            self._count = random & 0x3FFFF  # room to count up
        self._count = count = self._count + 1
        return f"{prefix}{self._head}{_PAIRS[count >> 10]}{_PAIRS[count & 1023]}"


def base62(length: int) -> str:
    """Random text of `length` characters of base 62, for secrets."""
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def fraction() -> float:
    """A random number in [0, 1), for jitter."""
    return secrets.randbelow(1 << 30) / (1 << 30)


def random_bytes(count: int) -> bytes:
    return secrets.token_bytes(count)
