"""drop_not_null: let a column be NULL again, so that a release may stop writing it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from psycopg import sql

from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import (
    Context,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import DropsNotNull, Effect
from online_migrate.operations.shared.steps import alter_column, run_window
from online_migrate.plan.model import Phase

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html"
_NEEDED_BY = """
SELECT 'it is part of the ' || CASE WHEN i.indisprimary THEN 'primary key ' ELSE 'replica identity ' END
       || c.relname
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
 WHERE i.indrelid = %(oid)s AND a.attname = %(column)s AND (i.indisprimary OR i.indisreplident)
UNION ALL
SELECT 'it is an identity column' FROM pg_attribute a
 WHERE a.attrelid = %(oid)s AND a.attname = %(column)s AND a.attidentity <> ''
UNION ALL
SELECT 'it is NOT NULL in ' || p.relname || ', which the table belongs to'
  FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent
  JOIN pg_attribute a ON a.attrelid = p.oid AND a.attname = %(column)s AND a.attnotnull
 WHERE h.inhrelid = %(oid)s ORDER BY 1"""
"""what makes the server refuse DROP NOT NULL (manual, ALTER TABLE)"""
_KEPT_BELOW = """
WITH RECURSIVE heir (oid) AS (
  SELECT inhrelid FROM pg_inherits WHERE inhparent = %(oid)s
  UNION SELECT h.inhrelid FROM pg_inherits h JOIN heir ON h.inhparent = heir.oid)
SELECT c.relname FROM heir JOIN pg_class c USING (oid) JOIN pg_constraint n ON n.conrelid = c.oid
  JOIN pg_attribute a ON a.attrelid = c.oid AND ARRAY[a.attnum] = n.conkey
 WHERE n.contype = 'n' AND n.conislocal AND NOT c.relispartition AND a.attname = %(column)s ORDER BY 1"""
_IS_NOT_NULL = """
SELECT a.attnotnull FROM pg_attribute a WHERE a.attrelid = %(oid)s AND a.attname = %(column)s"""


class DropNotNullParams(TableParams):
    """The column that may be NULL again."""

    column: str
    """column that rows may have no value in"""


class DropNotNull(Operation[DropNotNullParams]):
    """Drop NOT NULL from a column.

    What it does: ALTER COLUMN … DROP NOT NULL. No row is written or scanned. An INSERT that does not name the
    column then stores its default, or NULL. A column is dropped in two stages: first this step, so that the
    next release may stop writing the column while the old one still runs.

    Locks: ACCESS EXCLUSIVE on the table, and on its partitions and inheriting tables, in one lock window.

    On a crash: the ALTER TABLE either committed or did not; the next run reads the catalog.

    How to undo: set_not_null, once every row has a value again.
    """

    name = "drop_not_null"
    phase = Phase.EXPAND
    summary = "let a column be NULL"
    descendants = Descendants.ALONG
    Params: ClassVar[type[DropNotNullParams]] = DropNotNullParams

    def title(self, params: DropNotNullParams) -> str:
        return f"drop_not_null {params.column}"

    def effects(self, place: Place, params: DropNotNullParams) -> tuple[Effect, ...]:
        return (DropsNotNull(table=place.table, column=params.column),)

    def statements(self, place: Place, params: DropNotNullParams) -> tuple[Statement, ...]:
        return (alter_column(place, params.column, sql.SQL("DROP NOT NULL")),)

    def preflight(self, place: Place, params: DropNotNullParams) -> list[Finding]:
        return [*self._refused(place, params), *self._kept_below(place, params)]

    def _refused(self, place: Place, params: DropNotNullParams) -> Iterator[Finding]:
        """What needs the column to be NOT NULL: the server refuses to drop it."""
        table = place.known.table(place.table)
        if table is None or self.state(place, params) is State.DONE:
            return
        given = {"oid": table.oid, "column": params.column}
        for (reason,) in place.known.connection.execute(_NEEDED_BY, given).fetchall():
            yield Finding(
                severity=Severity.STOP,
                code="not_null_needed",
                fact=f"{place.table}.{params.column} cannot be NULL: {reason}",
                remedy="change that first, or take the step out of the plan",
                manual=MANUAL,
            )

    def _kept_below(self, place: Place, params: DropNotNullParams) -> Iterator[Finding]:
        """From 18 on an inheriting table keeps the NOT NULL that it has of its own."""
        table = place.known.table(place.table)
        if table is None or self.state(place, params) is State.DONE:
            return
        given = {"oid": table.oid, "column": params.column}
        names = [name for (name,) in place.known.connection.execute(_KEPT_BELOW, given).fetchall()]
        if names:
            yield Finding(
                severity=Severity.WARN,
                code="not_null_kept",
                fact=f"tables that inherit from {place.table} have their own NOT NULL on {params.column},"
                f" which stays: {', '.join(names)}",
                remedy="name them in the step as well, unless their rows must have a value",
                manual=MANUAL,
            )

    def state(self, place: Place, params: DropNotNullParams) -> State:
        """Done where the column has no NOT NULL, not even one that is NOT VALID (from 18 on)."""
        table = place.known.table(place.table)
        if table is None or params.column not in table.columns:
            return State.ABSENT
        given = {"oid": table.oid, "column": params.column}
        row = place.known.connection.execute(_IS_NOT_NULL, given).fetchone()
        return State.ABSENT if row is None or row[0] else State.DONE

    def execute(self, context: Context, params: DropNotNullParams) -> int:
        if self.state(context.place, params) is not State.DONE:
            run_window(context, self.statements(context.place, params))
        return 0

    def verify(self, place: Place, params: DropNotNullParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = f"{place.table}.{params.column} is NOT NULL again, or was dropped"
        return [
            Finding(
                severity=Severity.STOP,
                code="not_null_back",
                fact=fact,
                remedy="find out who changed it",
                manual=MANUAL,
            )
        ]
