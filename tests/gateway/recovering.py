"""Worlds in which streams die: two endpoints of one dialect, whose replies are scripted."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from proxy.model.observations import StreamRecovery
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import Endpoint, Route, Timeouts
from proxy.runtime.tasks import spawn
from tests.kit.builders import ANTHROPIC, BEDROCK, OPENAI, SPARE, World, policy, world
from tests.kit.fakes import RecordingDownstream
from tests.kit.reading import Said, read_chat, read_messages
from tests.kit.replies import Script, ok
from tests.kit.reply import Reply
from tests.kit.replying import Replying

SENTENCE = "The quick brown fox jumps over the lazy dog and then it rests for a while."
Pair = Literal["chat", "messages", "seed"]
Mode = Literal["off", "resume", "buffer"]
PAIRS: tuple[Pair, ...] = ("chat", "messages", "seed")
CLAUDE = ANTHROPIC.model_copy(
    update={"id": "claude-spare", "base_url": "http://127.0.0.1:9", "api_key": "k9"}
)
_ENDPOINTS: dict[Pair, tuple[Endpoint, Endpoint]] = {
    "chat": (OPENAI, SPARE),
    "messages": (ANTHROPIC, CLAUDE),
    "seed": (ANTHROPIC, BEDROCK),
}
_READERS: dict[Pair, Callable[[bytes], Said]] = {
    "chat": read_chat, "messages": read_messages, "seed": read_messages,
}  # fmt: skip


class Dying:
    """One route over a primary and a fallback."""

    def __init__(
        self,
        pair: Pair,
        primary: Script,
        fallback: Script,
        *,
        prefill: bool = True,
        mode: Mode = "resume",
        packs: Sequence[PolicyPack] = (),
        **more: Any,
    ) -> None:
        first, second = _ENDPOINTS[pair]
        second = second.model_copy(update={"supports_prefill": prefill})
        self.pair = pair
        self.primary, self.fallback = Replying(primary), Replying(fallback)
        route = Route(
            id="chat", endpoint=first.id, stream_recovery=mode, timeouts=Timeouts(),
            policy_packs=[pack.policy_pack_id for pack in packs],
        )  # fmt: skip
        self.world: World = world(
            [first, second],
            failover=policy(first.id, second.id, **more),
            routes=[route],
            packs=packs,
            upstreams={first.id: self.primary, second.id: self.fallback},
        )

    async def ask(self, **more: Any) -> Said:
        """One streamed request, to its end."""
        self.caller = await self.sent(**more)
        return _READERS[self.pair](self.caller.received)

    async def sent(self, **more: Any) -> RecordingDownstream:
        messages = [{"role": "user", "content": "Tell me about the fox."}]
        doc: dict[str, Any] = {"model": "anthropic.claude-3", "messages": messages, "stream": True}
        path = "/v1/messages"
        headers = [(b"content-type", b"application/json"), (b"anthropic-version", b"2023-06-01")]
        if self.pair == "chat":
            path = "/v1/chat/completions"
            doc["stream_options"] = {"include_usage": True}
        else:
            doc["max_tokens"] = 100
        body = json.dumps(doc | more).encode()
        task = spawn(self.world.ask(body, path, headers), name="caller")
        while not task.done():
            for _ in range(50):
                await asyncio.sleep(0)
            if not task.done():
                self.world.clock.advance(0.01)
        return await task

    @property
    def asked(self) -> tuple[int, int]:
        return len(self.primary.requests), len(self.fallback.requests)

    @property
    def recoveries(self) -> list[tuple[str, str]]:
        seen = self.world.notes.seen
        return [(w.mode, w.result) for w in seen if isinstance(w, StreamRecovery)]


def cut_after(pieces: int, text: str = SENTENCE) -> Reply:
    return ok(text).cut(after=pieces)
