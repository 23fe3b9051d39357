"""What a correlator, an evaluator and a deliverer would have stored."""

from typing import Any

from proxy.incidents.changes import Found, joined, opened
from proxy.incidents.incident import Incident
from proxy.model.batch import Append, Batch
from proxy.model.events import iso
from proxy.storage.documents import document
from proxy.storage.incidents import find, keep
from proxy.wire import jsonbody
from tests.control.world import World

START_MS = 1_710_513_000_000  # the clock of the tests at first
INCIDENTS = "/v1/workspaces/default/incidents"


async def incident(world: World, incident_id: str, **more: Any) -> str:
    """An incident that was just found; its path."""
    at_ms = more.pop("at_ms", START_MS)
    known: dict[str, Any] = {"severity": "medium", "type": "failover", "title": "found"}
    known |= {"created_at": iso(at_ms), "updated_at": iso(at_ms), **more}
    found = Incident(incident_id=incident_id, **known)
    await keep(world.store, "default", f"cm-{incident_id}", opened(found))
    return f"{INCIDENTS}/{incident_id}"


async def signal(world: World, incident_id: str, found: Found, at_ms: int = START_MS) -> None:
    held = await find(world.store, "default", incident_id)
    assert held is not None
    change = joined(held.incident, found, at_ms)
    await keep(world.store, "default", f"cm-{incident_id}-{held.revision}", change, held)


async def stored_document(world: World, kind: str, doc_id: str, said: Any, **more: Any) -> None:
    put = document(kind, doc_id, said, more.get("at_ms", START_MS))
    await world.store.commit("default", Batch(f"cm-{kind}-{doc_id}", (put,)))


async def logged(world: World, log: str, kind: str, *bodies: Any) -> None:
    ops = tuple(Append(log, jsonbody.dumps(body), at_ms=START_MS, type=kind) for body in bodies)
    end = await world.store.head("default", log)  # a commit id means one commit
    await world.store.commit("default", Batch(f"cm-{log}-{end}", ops))
