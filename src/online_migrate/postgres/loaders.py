"""Values that PostgreSQL has and Python has not: our sessions read them as the server spells them.

``infinity``, years before Christ and after 9999, ``24:00:00`` and intervals of millions of years are values
like others: a reading that meets one must not fail.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import AdaptContext
from psycopg.types import datetime as types


class _OrText(psycopg.adapt.Loader):
    """In front of a loader of psycopg: its value, or the server's text where Python has none."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)  # type: ignore[safe-super]  # the loader that comes after in the class
        except (psycopg.DataError, OverflowError, ValueError):
            return bytes(data).decode()


class _Date(_OrText, types.DateLoader):
    pass


class _Time(_OrText, types.TimeLoader):
    pass


class _Timetz(_OrText, types.TimetzLoader):
    pass


class _Timestamp(_OrText, types.TimestampLoader):
    pass


class _Timestamptz(_OrText, types.TimestamptzLoader):
    pass


class _Interval(_OrText, types.IntervalLoader):
    pass


def register_loaders(connection: AdaptContext) -> None:
    """For the text format, in which psycopg reads results unless it is asked for another."""
    for name, loader in {
        "date": _Date,
        "time": _Time,
        "timetz": _Timetz,
        "timestamp": _Timestamp,
        "timestamptz": _Timestamptz,
        "interval": _Interval,
    }.items():
        connection.adapters.register_loader(name, loader)
