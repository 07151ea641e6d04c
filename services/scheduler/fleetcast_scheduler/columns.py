"""Columns of the tables. Instants are seconds since the epoch, UTC; what no query looks into is JSON."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Double, LargeBinary, Text
from sqlmodel import Field


def text(**options: Any) -> Any:
    """Returns the column of text."""
    return Field(sa_column=Column(Text, nullable=False, **options))


def integer(**options: Any) -> Any:
    """Returns the column of a whole number."""
    return Field(sa_column=Column(BigInteger, nullable=False, **options))


def instant(*, nullable: bool = False) -> Any:
    """Returns the column of an instant."""
    return Field(sa_column=Column(Double, nullable=nullable))


def json_(*, nullable: bool = False) -> Any:
    """Returns the column of a structure."""
    return Field(sa_column=Column(JSON(none_as_null=True), nullable=nullable))


def bytes_() -> Any:
    """Returns the column of bytes."""
    return Field(sa_column=Column(LargeBinary, nullable=False))
