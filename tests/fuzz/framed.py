"""Anthropic's events as its stream writes them, and as Bedrock does."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from proxy.wire.eventstream import encode_frame

HEADERS = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}


def as_events(docs: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(f"event: {doc['type']}\ndata: {json.dumps(doc)}\n\n".encode() for doc in docs)


def as_frames(docs: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(
        encode_frame(
            HEADERS,
            json.dumps({"bytes": base64.b64encode(json.dumps(doc).encode()).decode()}).encode(),
        )
        for doc in docs
    )
