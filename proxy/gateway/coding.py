"""Content codings of answers, undone on the way: a guard reads what a caller will read."""

import zlib


class Decoder:
    """One body.  A piece never becomes more than `limit_bytes`: a bomb is a bad answer."""

    __slots__ = ("_inner", "_limit")

    def __init__(self, encoding: bytes, limit_bytes: int) -> None:
        """Raises ValueError for a coding that is not known."""
        if encoding in (b"gzip", b"x-gzip"):
            self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif encoding == b"deflate":
            self._inner = zlib.decompressobj()
        else:
            raise ValueError(f"content encoding {encoding[:32].decode('latin-1')}")
        self._limit = limit_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Raises ValueError."""
        try:
            out = self._inner.decompress(chunk, self._limit)
        except zlib.error:
            raise ValueError("content encoding does not decode") from None
        if self._inner.unconsumed_tail:
            raise ValueError("compressed answer too large")
        return out
