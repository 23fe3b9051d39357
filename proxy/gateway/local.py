"""Answers that no endpoint of the route can give and that the configuration or an estimate can:
the list of models, one model, a count of tokens (wire.md §2.2, §9.3).
"""

from typing import Final

from proxy.gateway.blocks import policy_line
from proxy.gateway.turn import Turn
from proxy.model.errors import NoSuchRoute
from proxy.wire.jsonbody import dumps
from proxy.wire.listing import list_models, model_ids, one_model
from proxy.wire.usage import estimate_input

ANSWERED_HERE: Final = frozenset({"models", "model", "count_tokens"})


def answer_here(turn: Turn) -> None:
    """Write the answer.  Raises NoSuchRoute for a model that is not in the configuration."""
    surface, record = turn.exchange.surface, turn.record
    lines = b"content-type: application/json\r\nx-parapet-request-id: %b\r\n%b" % (
        record.request_id.encode("ascii"),
        turn.head_lines + policy_line(turn),
    )
    if surface.operation == "count_tokens":
        body = dumps({"input_tokens": estimate_input(turn.exchange.doc or {})})
        lines += b"x-parapet-estimated: true\r\n"
    else:
        workspace, key = turn.visit.workspace, turn.visit.key
        only = key.doc.route if key is not None else None
        routes = [r.doc for r in workspace.routes.values() if only in (None, r.doc.id)]
        endpoints = {name: view.doc for name, view in workspace.endpoints.items()}
        ids = model_ids(routes, endpoints)
        if surface.operation == "models":
            body = list_models(surface.dialect, ids)
        elif surface.model in ids:
            body = one_model(surface.dialect, surface.model)
        else:
            raise NoSuchRoute(f"There is no model {str(surface.model)[:64]!r} here.")
    record.outcome, record.status_code = "success", 200
    turn.caller.begin(200, lines, length=len(body))
    turn.caller.hold(body)
