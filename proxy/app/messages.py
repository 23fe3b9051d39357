"""What a worker and the control process tell each other of endpoints (failover.md §11).

worker to control            control to worker
counts, changes, hold         standings, hold
probing, probed              grant, taken, here
"""

from collections.abc import Iterator, Mapping, Sequence

from proxy.link.frames import Message
from proxy.model.exchange import Json
from proxy.routing.holds import Hold, Key
from proxy.routing.merging import told_doc, told_of, whole
from proxy.routing.standing import Standing


def named(standing: Standing) -> dict[str, Json]:
    """Which policy it is."""
    return {"workspace_id": standing.workspace_id, "policy_id": standing.policy.effective_id}


def objects(message: Mapping[str, Json], name: str) -> Iterator[dict[str, Json]]:
    """Raises ValueError: no array of objects."""
    found = message.get(name)
    if not isinstance(found, list):
        raise ValueError(f"{name} is no array")
    for each in found:
        if not isinstance(each, dict):
            raise ValueError(f"{name} holds something else than objects")
        yield each


def standing_doc(standing: Standing, now: float, over: Sequence[str] = ()) -> Message:
    """How a policy's endpoints stand; `over`: those that are limited no more."""
    limits: list[Json] = [
        {"endpoint_id": name, "left_ms": max(1, round((until - now) * 1000))}
        for name, until in standing.limited.items()
    ]
    limits += [{"endpoint_id": name, "left_ms": 0} for name in over]
    return {
        **named(standing),
        "active_endpoint": standing.active,
        "flap_ms": max(0, round((standing.flap_until - now) * 1000)),
        "states": [
            told_doc(told_of(name, breaker, now))
            for name, breaker in standing.breakers.items()
            if breaker.version
        ],
        "limits": limits,
    }


def hold_message(key: Key, hold: Hold | None, now: float, policy_id: str = "") -> Message:
    """An endpoint's own credential is held, or is not any more (None: nothing is left).  One whose
    time is over is not forgotten before somebody is answered.  `policy_id`: of whose request it
    was; empty: it is only known."""
    return {
        "t": "hold",
        "workspace_id": key.workspace_id,
        "endpoint_id": key.endpoint_id,
        "model": key.model,
        "policy_id": policy_id,
        "left_ms": 0 if hold is None else max(1, round((hold.until - now) * 1000)),
        "in_a_row": 0 if hold is None else hold.in_a_row,
        "quota": hold is not None and hold.quota,
    }


def held_key(message: Message) -> Key:
    return Key(
        str(message.get("endpoint_id")), "", str(message.get("model")),
        str(message.get("workspace_id")),
    )  # fmt: skip


def no_prefill_message(workspace_id: str, endpoint_id: str, seconds: float) -> Message:
    """An endpoint has refused to go on with an answer, and is not asked to for so long."""
    return {
        "t": "no_prefill", "workspace_id": workspace_id, "endpoint_id": endpoint_id,
        "left_ms": round(seconds * 1000),
    }  # fmt: skip


def no_prefill_of(message: Mapping[str, Json]) -> tuple[str, str, float]:
    """Raises ValueError."""
    endpoint_id = str(message.get("endpoint_id"))
    return str(message.get("workspace_id")), endpoint_id, seconds(message, "left_ms")


def seconds(message: Mapping[str, Json], name: str) -> float:
    """Raises ValueError."""
    return whole(message, name) / 1000
