"""The envelopes of lists, for the API's description."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """One page of documents."""

    model_config = ConfigDict(frozen=True)

    data: list[T]
    page: int
    limit: int
    total: int
    total_pages: int


class LogPart(BaseModel, Generic[T]):
    """One page of a log.  Null: reached by cursor, or the store's bound was met (`partial`)."""

    model_config = ConfigDict(frozen=True)

    data: list[T]
    page: int | None
    limit: int
    total: int | None
    total_pages: int | None
    next_cursor: str | None
    partial: bool = False
