"""Identifiers: ULIDs that are unique and sort by the order in which they were made."""

from proxy.runtime.ids import UlidIds, encode_ulid


def test_a_ulid_is_26_characters_of_crockfords_alphabet() -> None:
    assert encode_ulid(0) == "0" * 26
    assert encode_ulid((1 << 128) - 1) == "7" + "z" * 25
    assert encode_ulid(1469918176385 << 80)[:10] == "01aryz6s41"  # the ULID specification's vector


def test_ids_of_one_process_are_unique_and_in_order() -> None:
    ids = UlidIds()
    made = [ids.new("evt-") for _ in range(200_000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert {len(each) for each in made} == {30}


def test_two_processes_do_not_meet() -> None:
    one, two = UlidIds(), UlidIds()
    assert {one.new("") for _ in range(1000)}.isdisjoint(two.new("") for _ in range(1000))
