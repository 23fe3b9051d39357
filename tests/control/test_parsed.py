"""A document is parsed once per revision, and never too many are remembered."""

from proxy.control.parsed import Collection, Parsed
from tests.control.world import World

RULES = "/v1/workspaces/default/alert-rules"
RULE = {"condition": {"metric": "latency", "threshold_ms": 3000}}


def collection(*ids: str) -> Collection:
    return Collection(1, {doc_id: (1, doc_id) for doc_id in ids})


def test_what_was_looked_at_least_recently_goes_first() -> None:
    parsed = Parsed(limit=4)
    parsed.keep("a", "k", collection("1", "2"))
    parsed.keep("b", "k", collection("3"))
    assert parsed.of("a", "k").documents
    parsed.keep("c", "k", collection("4", "5"))
    assert not parsed.of("b", "k").documents
    assert parsed.of("a", "k").documents
    assert len(parsed) == 4


def test_a_collection_beyond_the_bound_is_not_remembered() -> None:
    parsed = Parsed(limit=1)
    parsed.keep("a", "k", collection("1", "2"))
    assert len(parsed) == 0


async def test_a_list_sees_each_change_at_once(stored: World) -> None:
    async def names() -> list[str]:
        listed = await stored.get(f"{RULES}?sort=name")
        return [each["name"] for each in listed.doc["data"]]

    assert await names() == []
    for name in ("a", "b", "c"):
        await stored.post(RULES, {**RULE, "id": name, "name": name})
        assert name in await names()
    await stored.call("PATCH", f"{RULES}/b", {"name": "z"})
    assert await names() == ["a", "c", "z"]
    await stored.call("DELETE", f"{RULES}/a")
    await stored.post(RULES, {**RULE, "id": "a", "name": "again"})
    assert await names() == ["again", "c", "z"]
