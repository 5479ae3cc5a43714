"""Column types that hold the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Enum, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class Utc(TypeDecorator[datetime]):
    """A moment in UTC: SQLite has no time zones, PostgreSQL gives those of the session."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; without a zone where the database has none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Back to an aware moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Plain(TypeDecorator[str]):
    """Text as guests print it.

    PostgreSQL refuses the character NUL in text (its manual, section 8.3), and both databases
    what UTF-8 cannot express; U+FFFD takes the place of either. The folder keeps the original.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Without what databases refuse."""
        return None if value is None else plain(value)


def plain(text: str) -> str:
    """``text`` as the store holds it."""
    text = text.replace("\0", "\ufffd")
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def words(kind: type[enum.StrEnum]) -> Enum:
    """A column for an enumeration, kept as its word.

    A check constraint would need a migration for each new word.
    """

    def values(members: Any) -> list[str]:
        return [member.value for member in members]

    return Enum(kind, native_enum=False, create_constraint=False, length=20, values_callable=values)
