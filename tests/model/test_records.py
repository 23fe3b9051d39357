"""The record of a request: made whole from three values."""

from dataclasses import asdict, fields

from proxy.model.records import RequestRecord


def test_every_member_has_a_value_from_the_start() -> None:
    known = asdict(RequestRecord("req-1", "evt-1", 5))
    assert known.keys() == {member.name for member in fields(RequestRecord)}
    assert (known["request_id"], known["event_id"], known["received_at_ms"]) == (
        "req-1",
        "evt-1",
        5,
    )


def test_two_records_share_no_list() -> None:
    one, other = (RequestRecord("req-1", "evt-1", 5) for _ in range(2))
    assert one == other
    for member in ("attempts", "decisions", "dropped", "policy_results"):
        assert getattr(one, member) == []
        assert getattr(one, member) is not getattr(other, member)
