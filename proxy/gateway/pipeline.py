"""The life of a request, in one page.

    0 look    one frozen snapshot for the whole request
    1 match   route and workspace                         -> 404
    2 admit   key, role                                   -> 401 403
    3 read    bytes -> Exchange, every text addressable   -> 400 413 422
              limits of key and route                     -> 429
    4 ask     guardrails on the request                   -> blocked, in the caller's dialect
    5 reach   `next_move` decides, the transport does, outcomes judge; until an answer has begun
    6 relay   upstream bytes -> framer -> reader -> guard -> caller, pushed, no task per chunk
    7 tell    exactly one record, on disk before the last write of the answer; never awaits

Laws.  A retry starts from the original exchange.  What is scanned is what is forwarded.  A block is
final and blames no endpoint.  The caller gone: upstream closed at once.  A stream that dies is told
in the caller's dialect and ends without its last chunk: truncation never looks like success.
"""

import asyncio

from proxy.gateway.admission import admit
from proxy.gateway.ask import ask
from proxy.gateway.limits import claim, settle
from proxy.gateway.local import answer_here
from proxy.gateway.noting import note_unread, tell_permits
from proxy.gateway.reach import reach
from proxy.gateway.read import read
from proxy.gateway.relay import refuse, relay
from proxy.gateway.tell import open_record, tell
from proxy.gateway.turn import Gateway
from proxy.model.errors import ProxyError
from proxy.model.exchange import Inbound
from proxy.model.ports import Downstream


async def serve(
    inbound: Inbound, caller: Downstream, gateway: Gateway, refusal: ProxyError | None = None
) -> None:
    """Carry one request from look to tell; one with a `refusal` of the front is only told."""
    started = gateway.clock.monotonic()
    rules = gateway.rules()  # 0 look
    record = open_record(inbound, gateway)
    turn, settled = None, False
    try:
        if refusal is not None:
            raise refusal
        visit = admit(rules, inbound, record.received_at_ms)  # 1 match, 2 admit
        inbound.body = await caller.body(rules.doc.max_body_bytes)
        turn = await read(visit, inbound, record, caller, gateway, started)  # 3 read
        if turn.limited:
            await claim(turn, gateway)
        if turn.route.asks:
            await ask(turn, rules, gateway)  # 4 ask
            note_unread(turn)
        if turn.exchange.stream:
            gateway.early.waits(turn)
        answer = await reach(turn, rules, gateway)  # 5 reach
        if answer is None:
            if turn.beside is not None:
                await turn.beside.verdict()
            answer_here(turn)  # a list of models, a count of tokens
        else:
            await relay(turn, answer, rules, gateway)  # 6 relay
        settled = True
    except ProxyError as fault:
        refuse(inbound, turn, fault, record, caller)
        settled = True
    except asyncio.CancelledError:
        record.outcome = "client_cancelled" if caller.gone else "gateway_error"
        raise
    finally:
        if turn is not None:
            if turn.exchange.stream:
                gateway.early.over(turn)
            turn.land(gateway.clock.monotonic())
            tell_permits(turn, gateway)
        tell(record, caller, gateway, rules, started)  # 7 tell
        if turn is not None and turn.hold is not None:
            settle(turn.hold, record, gateway)
        if settled:
            caller.end()  # the last write: whoever saw the end can find the event
