"""Every public error code is one thing, and README.md lists them all."""

import pytest

from proxy.model.errors import ProxyError
from tests.house.errors_table import README, errors_table, public_errors, written_table


def test_codes_are_unique() -> None:
    codes = [error.code for error in public_errors()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", public_errors())
def test_every_error_has_a_face(error: type[ProxyError]) -> None:
    assert 400 <= error.status <= 599
    assert error.code.isascii()
    assert error.code == error.code.lower()
    assert error.__doc__


def test_the_readme_lists_them_all() -> None:
    """`python -m tests.house.errors_table` writes the table."""
    assert written_table(README.read_text()) == errors_table()
