"""Holds while the operator's own query says so: the one thing that only they know how to measure."""

from __future__ import annotations

import math
from decimal import Decimal

import psycopg

from online_migrate.backfill.throttlers.base import Reading, bounded
from online_migrate.figures import short_seconds_text
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.search_path import SearchPath, local_path


class Query:
    """Red if the query returns true, or a number that reaches ``limit``.

    It is executed read-only and ends within ``timeout_s``.  Any result other than one boolean or one number,
    also NULL and NaN, is no answer and raises psycopg.DataError.
    """

    def __init__(self, *, name: str, text: str, limit: float | None, timeout_s: float) -> None:
        self.name = f"query_{name}"
        self._text = text
        self._limit = limit
        self._timeout_s = timeout_s

    def blind(self, connection: Connection) -> str | None:
        """Execute it once: `check` thus finds a mistake in the query."""
        try:
            self.read(connection)
        except psycopg.errors.QueryCanceled:
            limit = short_seconds_text(self._timeout_s)
            return f"make {self.name} faster: it takes longer than its timeout of {limit}"
        except psycopg.Error as error:
            return f"correct {self.name}: {' '.join(str(error).split())}"
        return None

    def read(self, connection: Connection) -> Reading:
        with bounded(connection, self._timeout_s), local_path(connection, SearchPath.PLAN):
            rows = connection.execute(self._text.encode()).fetchmany(2)
        if len(rows) != 1 or len(rows[0]) != 1:
            raise psycopg.DataError("the query must return one row with one column")
        return self._judge(rows[0][0])

    def _judge(self, value: object) -> Reading:
        if isinstance(value, bool):
            return Reading(
                name=self.name, utilisation=float(value), reason=f"{self.name} returned {str(value).lower()}"
            )
        if not isinstance(value, int | float | Decimal) or math.isnan(value):
            raise psycopg.DataError(f"the query returned {value!r}, which is neither a number nor a boolean")
        if self._limit is None:
            raise psycopg.DataError(
                f"the query returned the number {value}, and the plan sets no `limit` for it"
            )
        return Reading(
            name=self.name,
            utilisation=float(value) / self._limit,
            reason=f"{self.name} is {value} (limit {self._limit:g})",
        )
