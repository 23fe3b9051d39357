"""The table of public errors in README.md: made from `model/errors.py`, compared in a test.

To write it anew: `python -m tests.house.errors_table`.
"""

from collections.abc import Iterator
from pathlib import Path

from proxy.model import errors
from proxy.model.errors import CallerFault, HouseFault, ProxyError, UpstreamFault

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- errors:begin -->", "<!-- errors:end -->"
AT_FAULT = {CallerFault: "the caller", UpstreamFault: "the endpoint", HouseFault: "Parapet"}


def public_errors() -> list[type[ProxyError]]:
    """Every class that a caller can be told about, in the order of the file."""
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    return [
        each
        for each in found
        if issubclass(each, ProxyError) and each not in (ProxyError, *AT_FAULT)
    ]


def errors_table() -> str:
    """The table, between its markers."""
    return "\n".join([BEGIN, *_rows(), END])


def _rows() -> Iterator[str]:
    yield "| status | code | at fault | meaning |"
    yield "|--:|---|---|---|"
    for error in public_errors():
        (fault,) = [name for kind, name in AT_FAULT.items() if issubclass(error, kind)]
        meaning = " ".join((error.__doc__ or "").split())
        yield f"| {error.status} | `{error.code}` | {fault} | {meaning} |"


def written_table(text: str) -> str:
    """What stands between the markers, and they."""
    start, end = text.index(BEGIN), text.index(END) + len(END)
    return text[start:end]


def update(path: Path = README) -> None:
    text = path.read_text()
    path.write_text(text.replace(written_table(text), errors_table()))


if __name__ == "__main__":
    update()
