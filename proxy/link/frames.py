"""Messages on the link: a length of four bytes, big-endian, and a JSON object with a member `t`."""

import asyncio
from typing import Final

from proxy.model.exchange import Json
from proxy.wire.jsonbody import dumps, loads

SOCKET: Final = "link.sock"  # in the state directory
MAX_BYTES: Final = 64 * 1024 * 1024
UNREAD_BYTES: Final = 4 * 1024 * 1024  # what a peer that does not read may be behind
Message = dict[str, Json]


class LinkBroken(Exception):
    """The peer sent what is no message; the connection is of no more use."""


def pack(message: Message) -> bytes:
    body = dumps(message)
    return len(body).to_bytes(4, "big") + body


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None when the peer has closed."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_BYTES:
            raise LinkBroken(f"a message of {size} bytes")
        body = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        message = loads(body)
    except ValueError as why:
        raise LinkBroken("not JSON") from why
    if not isinstance(message, dict):
        raise LinkBroken("not an object")
    return message
