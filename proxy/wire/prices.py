"""What an answer cost (wire.md §10).

Prices are USD per million tokens, as decimal strings; sums are integers of 10⁻¹² USD, results
integer nano-dollars.  A model whose price is unknown costs `None`, never 0.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Final, Literal

from pydantic import ValidationError

from proxy.model.exchange import Usage
from proxy.model.tenancy import Price, PriceTier, Provider

Basis = Literal["endpoint", "exact", "normalised", "fallback", "unknown"]
_PICO_PER_TOKEN: Final = 1_000_000  # of one USD per million tokens
_REMEMBERED: Final = 1024
_REGION: Final = re.compile(r"^(?:us-gov|us|eu|apac|au|jp|ca|global)\.")
_VENDOR: Final = re.compile(r"^(?:anthropic|amazon|meta|mistral|cohere|openai|deepseek)\.")
_VERSION: Final = re.compile(r"-v\d+(?::\d+(?:k)?)?$")
_DATE: Final = re.compile(r"(?:-(?:20\d{6}|20\d\d-\d\d-\d\d)|@[0-9a-z-]+)$")


class BadPrice(ValueError):
    """A price that is no price; the message says where."""


@dataclass(slots=True, frozen=True)
class Rates:
    """Prices of one model, in 10⁻¹² USD per token.  None: no price of its own."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    above: int = 0  # these rates hold above so many input tokens
    tiers: "tuple[Rates, ...]" = ()

    def named(self) -> tuple[int | None, ...]:
        return (
            self.input,
            self.output,
            self.cache_read,
            self.cache_write_5m,
            self.cache_write_1h,
            self.reasoning,
        )

    def at(self, input_tokens: int) -> "Rates":
        """The rates of the tier that so much input falls in."""
        chosen = self
        for tier in self.tiers:
            if input_tokens > tier.above >= chosen.above:
                chosen = tier
        return chosen


@dataclass(slots=True, frozen=True)
class PriceBook:
    """Prices by `<provider>/<model id>`."""

    models: Mapping[str, Rates]
    plain: Mapping[str, Rates]  # the same under normalised names
    version: str = ""
    _found: dict[tuple[str, str], tuple[Rates | None, Basis]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<PriceBook {self.version} {len(self.models)} models>"

    def known_models(self) -> frozenset[str]:
        """Model ids that may stand in a metric's label."""
        return frozenset(name.partition("/")[2] for name in self.models)

    def cost(
        self,
        provider: Provider,
        model_id: str,
        usage: Usage,
        endpoint_price: Price | Mapping[str, Price] | None = None,
    ) -> tuple[int | None, Basis, str]:
        """(nano-dollars or None, where the price is from, version of the prices).

        `fallback`: a cache had no price of its own and was counted as plain input.
        """
        if endpoint_price is None:
            return self._listed(provider, model_id, usage)
        found = _own_price(endpoint_price, model_id)
        multiplier = Decimal(1)
        rates: Rates | None = None
        basis: Basis = "unknown"
        if found is not None:
            rates, basis = rates_of(found, model_id), "endpoint"
            if found.multiplier is not None:
                multiplier = _decimal(found.multiplier, f"{model_id}: multiplier")
        if rates is None or rates.input is None or rates.output is None:
            listed, listed_basis = self._look_up(provider, model_id)
            rates = _over(rates, listed) if rates is not None else listed
            basis = basis if found is not None and rates is not None else listed_basis
        if rates is None:
            return None, "unknown", self.version
        pico, fell_back = _sum(rates.at(usage.all_input), usage)
        if pico is None:
            return None, "unknown", self.version
        nano = int((pico * multiplier / 1000).quantize(Decimal(1), rounding="ROUND_HALF_UP"))
        return nano, "fallback" if fell_back else basis, self.version

    def _listed(
        self, provider: Provider, model_id: str, usage: Usage
    ) -> tuple[int | None, Basis, str]:
        """The cost by the book alone.  Look-ups are remembered, up to a bound."""
        key = (provider, model_id)
        known = self._found.get(key)
        if known is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            known = self._found[key] = self._look_up(provider, model_id)
        rates, basis = known
        if rates is None:
            return None, "unknown", self.version
        pico, fell_back = _sum(rates.at(usage.all_input), usage)
        if pico is None:
            return None, "unknown", self.version
        return (pico + 500) // 1000, "fallback" if fell_back else basis, self.version

    def _look_up(self, provider: Provider, model_id: str) -> tuple[Rates | None, Basis]:
        exact = self.models.get(f"{provider}/{model_id}")
        if exact is not None:
            return exact, "exact"
        name = normalised(model_id)
        rates = self.plain.get(f"{provider}/{name}") or self.plain.get(f"{_family(name)}/{name}")
        return rates, "normalised" if rates is not None else "unknown"


def parse_prices(doc: Mapping[str, object], version: str = "") -> PriceBook:
    """A book from a price file, or from its `models` as the snapshot has them.  Raises BadPrice."""
    listed = doc.get("models", doc)
    if not isinstance(listed, Mapping):
        raise BadPrice("`models` is not an object")
    said = doc.get("version")
    models = {str(name): _entry(str(name), entry) for name, entry in listed.items()}
    plain: dict[str, Rates] = {}
    for name, rates in models.items():
        provider, _, model_id = name.partition("/")
        plain.setdefault(f"{provider}/{normalised(model_id)}", rates)
    return PriceBook(models, plain, version or (said if isinstance(said, str) else ""))


def normalised(model_id: str) -> str:
    """A model id without region, vendor, version and date."""
    name = model_id.rpartition("/")[2]
    name = _VENDOR.sub("", _REGION.sub("", name))
    return _DATE.sub("", _VERSION.sub("", name))


def rates_of(price: Price | PriceTier, where: str) -> Rates:
    """Raises BadPrice."""

    def rate(value: float | str | None, member: str) -> int | None:
        return None if value is None else _pico(value, f"{where}: {member}")

    base = Rates(
        rate(price.input_per_mtok, "input_per_mtok"),
        rate(price.output_per_mtok, "output_per_mtok"),
        rate(price.cache_read_per_mtok, "cache_read_per_mtok"),
        rate(price.cache_write_5m_per_mtok, "cache_write_5m_per_mtok"),
        rate(price.cache_write_1h_per_mtok, "cache_write_1h_per_mtok"),
        rate(price.reasoning_per_mtok, "reasoning_per_mtok"),
    )
    if isinstance(price, PriceTier) or not price.tiers:
        return base
    tiers = [
        replace(_over(rates_of(tier, where), base), above=tier.above_input_tokens)
        for tier in price.tiers
    ]
    return replace(base, tiers=tuple(sorted(tiers, key=lambda tier: tier.above)))


# --- look-up


def _own_price(price: Price | Mapping[str, Price] | None, model_id: str) -> Price | None:
    """The endpoint's own price of the model: the longest matching glob of a map."""
    if price is None or isinstance(price, Price):
        return price
    fit = [glob for glob in price if fnmatchcase(model_id, glob)]
    return price[max(fit, key=len)] if fit else None


def _family(name: str) -> str:
    """The vendor whose own price list has the model, when its reseller's has not."""
    if name.startswith("claude"):
        return "anthropic"
    if name.startswith(("gpt-", "o1", "o3", "o4", "text-embedding-", "chatgpt-")):
        return "openai"
    return "gemini" if name.startswith("gemini") else ""


def _over(first: Rates, second: Rates | None) -> Rates:
    """The rates of `first`, and those of `second` where it has none."""
    if second is None:
        return first
    pairs = zip(first.named(), second.named(), strict=True)
    merged = [mine if mine is not None else theirs for mine, theirs in pairs]
    return Rates(merged[0], merged[1], merged[2], merged[3], merged[4], merged[5])


# --- sums


def _sum(rates: Rates, usage: Usage) -> tuple[int | None, bool]:
    """Each bucket once."""
    if rates.input is None or (rates.output is None and usage.output):
        return None, False
    total = usage.input * rates.input
    fell_back = False
    for tokens, rate in (
        (usage.cache_read, rates.cache_read),
        (usage.cache_write_5m, rates.cache_write_5m),
        (usage.cache_write_1h, rates.cache_write_1h),
    ):
        fell_back = fell_back or (tokens > 0 and rate is None)
        total += tokens * (rates.input if rate is None else rate)
    out = rates.output or 0
    total += usage.output * out
    if rates.reasoning is not None:
        total += min(usage.reasoning, usage.output) * (rates.reasoning - out)
    return total, fell_back


# --- reading


def _entry(name: str, entry: object) -> Rates:
    if isinstance(entry, Price):
        return rates_of(entry, name)
    try:
        return rates_of(Price.model_validate(entry), name)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise BadPrice(f"{name}: {place}: {first['msg']}") from None


def _pico(value: float | str, where: str) -> int:
    return int((_decimal(value, where) * _PICO_PER_TOKEN).to_integral_value())


def _decimal(value: float | str, where: str) -> Decimal:
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise BadPrice(f"{where}: {str(value)[:32]!r} is not a decimal number") from None
    if not found.is_finite() or not 0 <= found <= 1_000_000:
        raise BadPrice(f"{where}: {str(value)[:32]!r} is not a price")
    return found
