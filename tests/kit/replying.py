"""The scripted provider's replies without sockets: an upstream of a gateway in memory."""

import asyncio

from proxy.model.exchange import Outgoing, RawHeaders
from proxy.model.ports import Call, Sink, TransportFault
from tests.kit.fakes import FakeCall, ScriptedUpstream
from tests.kit.grammars import Grammar, grammar_of
from tests.kit.replies import Casting, Script
from tests.kit.script import Finish, Head, Request, Send, Step, Wait

_FAULTS = {"fin": "eof", "rst": "reset", "unterminated": "eof", "silence": "idle"}


class Replying(ScriptedUpstream):
    """Plays one reply per request, one step per turn of the loop.  What is silent for ever, or for
    as long as a `Wait`, has met the limit in force: `waits` False plays on instead."""

    def __init__(self, script: Script, *, waits: bool = True) -> None:
        super().__init__()
        self._casting = Casting(script)
        self._waits = waits
        self.requests: list[Request] = []

    def start(
        self, outgoing: Outgoing, sink: Sink, *, connect_s: float, due: float, phase: str
    ) -> Call:
        call = FakeCall(due, phase)
        self.sent.append(outgoing)
        self.calls.append(call)
        self.sinks.append(sink)
        request = self._request(outgoing)
        self.requests.append(request)
        grammar = grammar_of(request)
        assert grammar is not None, request.path
        reply = self._casting.reply(grammar.model(request), request)
        steps = reply.steps(grammar, request)
        asyncio.get_running_loop().call_soon(self._next, steps, sink, call, grammar)
        return call

    def _request(self, outgoing: Outgoing) -> Request:
        first, *lines = outgoing.head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        named = [line.partition(": ") for line in lines]
        return Request(
            number=len(self.requests) + 1,
            connection=1,
            at=0.0,
            method=method,
            target=target,
            raw_headers=tuple((name, value) for name, _, value in named),
            body=outgoing.body,
        )

    def _next(self, steps: list[Step], sink: Sink, call: FakeCall, grammar: Grammar) -> None:
        if call.cancelled:
            return
        match steps.pop(0) if steps else None:
            case Head() as head:
                headers: RawHeaders = [(k.encode(), v.encode()) for k, v in head.headers]
                sink.head(head.status, headers)
            case Send(data):
                if data:
                    sink.data(data)
            case Wait() if self._waits:
                sink.failed(TransportFault(call.phase, response_bytes=1))
                return
            case Finish(how) if how != "clean":
                phase = _FAULTS[how]
                sink.failed(
                    TransportFault(call.phase if phase == "idle" else phase, response_bytes=1)
                )
                return
            case None | Finish():
                sink.end()
                return
            case _:
                pass
        asyncio.get_running_loop().call_soon(self._next, steps, sink, call, grammar)
