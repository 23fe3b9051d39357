"""What an event is recognised by when it comes again, the same in every engine."""

import hashlib


def event_key(log: str, event_id: str) -> bytes:
    """16 bytes.  Raises UnicodeEncodeError (a ValueError) for text that is not UTF-8."""
    return hashlib.blake2b(f"{log}\0{event_id}".encode(), digest_size=16).digest()
