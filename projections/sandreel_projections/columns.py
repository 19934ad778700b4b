"""What the columns of the views are made of: their types, and the metadata that all tables belong to."""

from __future__ import annotations

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Date, DateTime, Double, Integer, MetaData, Text

SCHEMA = "reel"
# What the schema says of itself.
PURPOSE = "sandreel: what the log says, for SQL. Written by the projector alone."
metadata = MetaData(schema=SCHEMA)


def text(name: str, comment: str, *, null: bool = True, key: bool = False) -> Column[str]:
    return Column(name, Text, comment=comment, nullable=null and not key, primary_key=key)


def count(name: str, comment: str, *, null: bool = False, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, comment=comment, nullable=null and not key, primary_key=key, autoincrement=False)


def number(name: str, comment: str, *, null: bool = False, key: bool = False) -> Column[int]:
    return Column(name, Integer, comment=comment, nullable=null and not key, primary_key=key, autoincrement=False)


def time(name: str, comment: str, *, null: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), comment=comment, nullable=null)


def date(name: str, comment: str) -> Column[object]:
    return Column(name, Date, comment=comment, nullable=False)


def flag(name: str, comment: str, *, null: bool = False) -> Column[bool]:
    return Column(name, Boolean, comment=comment, nullable=null)


def seconds(name: str, comment: str) -> Column[float]:
    return Column(name, Double, comment=comment)


def names(name: str, comment: str) -> Column[list[str]]:
    return Column(name, ARRAY(Text), comment=comment)


def place(what: str) -> list[Column[str]]:
    return [
        text("first_cursor", f"where {what} begins in the log: epoch:partition:sequence", null=False),
        text("last_cursor", "its newest event that these views have seen: epoch:partition:sequence", null=False),
    ]  # fmt: skip
