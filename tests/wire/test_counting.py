"""Tokens, what they cost, and which models there are."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proxy.wire
from proxy.model.exchange import Usage
from proxy.model.tenancy import Endpoint, Price, Route
from proxy.wire.listing import list_models, model_ids, one_model
from proxy.wire.prices import BadPrice, normalised, parse_prices
from proxy.wire.usage import (
    estimate_bytes,
    estimate_input,
    event_tokens,
    merge_anthropic,
    read_usage,
    write_usage,
)
from tests.wire.streams import GOLDEN

CASES = json.loads((GOLDEN / "usage.json").read_text())["cases"]
SHIPPED = json.loads((Path(proxy.wire.__file__).parent / "data" / "prices.json").read_text())
DIALECTS = ["openai_chat", "openai_responses", "anthropic_messages", "bedrock_converse", "gemini"]


def buckets(usage: Usage) -> int:
    return usage.all_input + usage.output


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c['from']}" for i, c in enumerate(CASES)])
def test_usage_vectors(case: dict) -> None:
    usage = read_usage(case["from"], case["raw"])
    assert usage == Usage(**case["buckets"])
    for dialect, written in case["written"].items():
        if dialect == "event":
            assert event_tokens(usage) == written
        else:
            assert write_usage(dialect, usage) == written


counts = st.integers(0, 10**9)


@given(st.builds(Usage, counts, counts, counts, counts, counts), st.sampled_from(DIALECTS))
def test_the_sum_survives_any_write_and_read_t_w_10(usage: Usage, dialect: str) -> None:
    again = read_usage(dialect, write_usage(dialect, usage))
    assert again is not None
    assert buckets(again) == buckets(usage)


values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({}) | st.just([])
)
NAMES = sorted({name for case in CASES for name in case["raw"]})


@pytest.mark.thorough
@given(st.dictionaries(st.sampled_from(NAMES), values), st.sampled_from(DIALECTS))
def test_nonsense_is_counted_as_nothing(raw: dict, dialect: str) -> None:
    usage = read_usage(dialect, raw)
    if usage is not None:
        assert all(
            0 <= getattr(usage, name) <= 4 * 2**53
            for name in ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
        )


def test_absent_usage_is_none() -> None:
    assert [read_usage("openai_chat", raw) for raw in (None, {}, [], "x", 5)] == [None] * 5


def test_anthropics_stream_overwrites_what_it_names() -> None:
    start = read_usage("anthropic_messages", {"input_tokens": 10, "output_tokens": 1})
    assert start is not None
    end = merge_anthropic(start, {"output_tokens": 7, "cache_read_input_tokens": 3})
    assert end == Usage(10, 3, output=7)


def test_estimates() -> None:
    assert [estimate_bytes(n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert estimate_input({}) == 1
    image = {"type": "image", "source": {"data": "x" * 100_000}}
    doc = {
        "system": "12345678",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "1234"}, image]}],
        "tools": [{"name": "abcd", "input_schema": {"type": "object"}}],
    }
    assert estimate_input(doc) == 2 + 4 + 1 + 1000 + 8 + 1


# --- prices

BOOK = parse_prices(SHIPPED)
OPUS = Usage(512, output=256)
COSTS = [
    # provider, model, usage, nano-dollars, basis
    ("anthropic", "claude-3-opus-20240229", OPUS, 26_880_000, "exact"),
    ("bedrock", "us.anthropic.claude-3-opus-20240229-v1:0", OPUS, 26_880_000, "normalised"),
    ("vertex", "claude-3-opus@20240229", OPUS, 26_880_000, "normalised"),
    ("azure-openai", "gpt-4o-2024-08-06", Usage(1000, output=1000), 12_500_000, "normalised"),
    ("openai", "gpt-4o", Usage(0, 1000, output=0), 1_250_000, "exact"),
    ("openai", "gpt-4", Usage(0, 1000, output=0), 30_000_000, "fallback"),
    ("anthropic", "claude-sonnet-4-5-20250929", Usage(200_000), 600_000_000, "exact"),
    ("anthropic", "claude-sonnet-4-5-20250929", Usage(100_000, 100_001), 660_000_600, "exact"),
    ("anthropic", "claude-3-opus-20240229", Usage(0, 0, 1000, 1000), 48_750_000, "exact"),
    ("openai", "text-embedding-3-small", Usage(1), 20, "exact"),
    ("openai", "nobody-knows", OPUS, None, "unknown"),
    ("openai-compatible", "llama", OPUS, None, "unknown"),
]


@pytest.mark.parametrize(("provider", "model", "usage", "nano", "basis"), COSTS)
def test_what_it_cost(
    provider: str, model: str, usage: Usage, nano: int | None, basis: str
) -> None:
    cost = BOOK.cost(provider, model, usage)  # type: ignore[arg-type]
    assert cost == (nano, basis, SHIPPED["version"])


def test_an_endpoints_own_price_wins() -> None:
    flat = Price(input_per_mtok="1", output_per_mtok=2, multiplier="0.5")
    assert BOOK.cost("openai", "gpt-4o", OPUS, flat)[:2] == (512_000, "endpoint")
    partly = Price(input_per_mtok="1")
    assert BOOK.cost("openai", "gpt-4o", OPUS, partly)[0] == 512_000 + 2_560_000
    assert BOOK.cost("openai", "unheard-of", OPUS, partly)[0] is None
    globs = {"*": flat, "gpt-*": Price(input_per_mtok="10", output_per_mtok="0")}
    assert BOOK.cost("openai", "gpt-4o", OPUS, globs)[0] == 5_120_000
    thoughts = Price(input_per_mtok="0", output_per_mtok="1", reasoning_per_mtok="3")
    assert BOOK.cost("openai", "x", Usage(output=10, reasoning=4), thoughts)[0] == 18_000
    assert BOOK.cost("openai", "gpt-4o", OPUS, {"claude*": flat})[1] == "exact"


def test_the_shipped_prices_read_and_the_snapshots_too() -> None:
    assert len(BOOK.known_models()) == len(SHIPPED["models"])
    prices = {name: Price.model_validate(entry) for name, entry in SHIPPED["models"].items()}
    book = parse_prices(prices, "v1")
    assert book.cost("anthropic", "claude-3-opus-20240229", OPUS) == (26_880_000, "exact", "v1")


@pytest.mark.parametrize("value", ["much", "-1", "NaN", "Infinity", "1e99"])
def test_a_bad_price_says_where(value: str) -> None:
    with pytest.raises(BadPrice, match="openai/x: input_per_mtok"):
        parse_prices({"models": {"openai/x": {"input_per_mtok": value}}})
    with pytest.raises(BadPrice, match="openai/x: typo"):
        parse_prices({"models": {"openai/x": {"typo": value}}})


def test_names_are_normalised() -> None:
    for name in (
        "claude-3-opus-20240229",
        "claude-3-opus@20240229",
        "anthropic.claude-3-opus-20240229-v1:0",
        "eu.anthropic.claude-3-opus-20240229-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-opus-20240229-v1:0",
    ):
        assert normalised(name) == "claude-3-opus"
    assert normalised("gpt-4o-2024-08-06") == "gpt-4o"
    assert normalised("gpt-4o-mini") == "gpt-4o-mini"


# --- listings


def test_what_can_be_named() -> None:
    endpoint = Endpoint(id="e", provider="openai", models={"fast": "m1"})
    route = Route.model_validate(
        {"id": "prod", "endpoint": "e", "match": {"models": ["claude*", "literal"]}}
    )
    assert model_ids([route, route], {"e": endpoint}) == ["fast", "literal", "prod"]


def test_listings_have_the_callers_shape() -> None:
    listed = json.loads(list_models("openai_chat", ["a", "b"]))
    assert (listed["object"], [m["id"] for m in listed["data"]]) == ("list", ["a", "b"])
    listed = json.loads(list_models("anthropic_messages", ["a", "b"]))
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("a", "b", False)
    assert json.loads(list_models("anthropic_messages", []))["first_id"] is None
    assert json.loads(list_models("gemini", ["a"]))["models"][0]["name"] == "models/a"
    assert json.loads(one_model("openai_chat", "a"))["object"] == "model"
    assert json.loads(one_model("gemini", "a", 5))["inputTokenLimit"] == 5
