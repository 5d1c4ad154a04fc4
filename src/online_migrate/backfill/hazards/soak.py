"""What the soak time of a backfill cannot see."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.insert_values import Source, read_givers


def read_soak_hazards(connection: Connection, table: TableInfo, column: str) -> Iterator[Finding]:
    """An INSERT that omits the column writes no NULL where something gives it a value.

    The default that the plan itself sets is meant to do so.
    """
    givers = read_givers(connection, table.oid, column)
    found = [str(g) for g in givers if not g.is_below and g.source is not Source.DEFAULT]
    if found:
        fact = (
            f"{table.name}: the soak time sees no INSERT that omits {column}, because something gives it a"
            f" value: {', '.join(found)}"
        )
        remedy = "look for such statements in the application: the soak time does not find them"
        yield Finding(severity=Severity.INFO, code="soak_misses", fact=fact, remedy=remedy)
