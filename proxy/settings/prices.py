"""The price table: the file in the package, and the owner's own merged over it (wire.md §10)."""

from importlib import resources

from pydantic import Field, ValidationError

from proxy.model.documents import Doc
from proxy.model.exchange import Json
from proxy.model.tenancy import Price
from proxy.settings.explain import explain
from proxy.settings.problems import ConfigError
from proxy.settings.yamlfile import parse_yaml

SHIPPED = "builtin:prices.json"


class PriceFile(Doc):
    """USD per million tokens, by `<provider>/<model id>`."""

    version: str = ""
    as_of: str = ""
    source: str = ""
    models: dict[str, Price] = Field(default_factory=dict)


def read_prices(own: bytes | None, name: str) -> tuple[dict[str, Price], str]:
    """(prices, version).  Raises ConfigError."""
    shipped = resources.files("proxy").joinpath("wire", "data", "prices.json")
    table = _read(shipped.read_bytes(), SHIPPED)
    if own is None:
        return table.models, table.version
    over = _read(own, name)
    version = "+".join(part for part in (table.version, over.version) if part)
    return table.models | over.models, version


def _read(data: bytes, name: str) -> PriceFile:
    tree = parse_yaml(data, name)
    value: Json = tree.value
    try:
        return PriceFile.model_validate(value)
    except ValidationError as error:
        told = explain(error, value, PriceFile)
        raise ConfigError([each.located(name, tree.line_of(each.path)) for each in told]) from None
