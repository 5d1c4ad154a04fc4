"""What a backfill works with, and which column of which table it fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from psycopg import sql

from online_migrate.backfill.throttlers import Throttles
from online_migrate.backfill.values import Value
from online_migrate.events import Event
from online_migrate.plan.model import HoldWhen, Pace
from online_migrate.postgres.catalog import TableInfo
from online_migrate.run import StepContext

MARK = "/* online-migrate */"
"""in each of our UPDATEs: it distinguishes them from the application's in pg_stat_statements"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillContext(StepContext):
    """What a worker works with while it backfills one column of one table."""

    plan_pace: Pace
    """as the plan has it"""
    hold_when: HoldWhen
    throttles: Throttles = field(default_factory=Throttles)
    """of the run"""
    reported_by: tuple[str, str, str] | None = None
    """the key of the step that executes it, if that is not the backfill: events name that step"""

    def emit(self, event_type: type[Event], **fields: Any) -> None:
        """An event of the step that executes."""
        stage, step, table = self.reported_by or self.key
        self.run.sink.emit(event_type(stage=stage, step=step, table=table, **fields))

    @property
    def pace(self) -> Pace:
        """As it is tuned now."""
        return self.run.steering.pace_of(self.plan_pace, self.key[2])

    @property
    def duty(self) -> float:
        """Our share of the time, 0…1, beside the workers that are active now."""
        return min(self.pace.duty * self.worker.share(), 1.0)


class By(Enum):
    """How a statement identifies its rows."""

    TID = "TID"
    """their TIDs: the fastest, but a row that the application updates meanwhile gets another TID"""
    KEY = "primary key"
    """if the table has one: a row keeps it when it is updated"""
    SCAN = "scan"
    """by a scan up to the first row without a value; only that row is locked and changed"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which column of which table is set to which value."""

    table: TableInfo
    column: str
    value: Value
    skip_triggers: bool = False
    """session_replication_role = replica: no trigger of the table fires, foreign keys are not checked"""

    @property
    def value_text(self) -> str:
        """The value as the journal keeps it: a resumed run compares it with the plan's."""
        return self.value.as_sql(self.table.name).as_string(None)

    @property
    def sql_table(self) -> sql.Identifier:
        return sql.Identifier(self.table.schema, self.table.name)

    @property
    def sql_column(self) -> sql.Identifier:
        return sql.Identifier(self.column)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key, or none."""
        return next((c.columns for c in self.table.constraints if c.kind == "p"), ())

    def update(self, rows: sql.Composable, *, skip_locked: bool = False, by: By = By.TID) -> sql.Composed:
        """The statement of a batch.  FOR NO KEY UPDATE: FOR UPDATE would skip and block rows that a child's
        insert locks.
        """
        if skip_locked and by is By.KEY:
            # by ctid the outer statement, whose snapshot is older than the lock, would miss a row that has
            # just moved
            key = sql.SQL("ROW({})").format(sql.SQL(", ").join(map(sql.Identifier, self.key)))
            rows = sql.SQL(
                "{rows} AND {key} OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT {key} FROM ONLY {table}"
                " WHERE {rows} AND {column} IS NULL FOR NO KEY UPDATE SKIP LOCKED))"
            ).format(table=self.sql_table, rows=rows, column=self.sql_column, key=key)
        elif skip_locked:
            rows = sql.SQL(
                "ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT ctid FROM ONLY {table} WHERE {rows} AND"
                " {column} IS NULL"
                " FOR NO KEY UPDATE SKIP LOCKED))"
            ).format(table=self.sql_table, rows=rows, column=self.sql_column)
        return update_statement(self.sql_table, self.sql_column, self.value, rows, row=self.table.name)


def update_statement(
    table: sql.Composable, column: sql.Composable, value: Value, rows: sql.Composable, *, row: str
) -> sql.Composed:
    """What a batch executes, and what explain prints; ``row`` is the table's name, by which ``value`` names
    its columns.

    Rows whose value is NULL are left as they are.
    """
    given = value.as_sql(row)
    known: sql.Composable = sql.SQL("")
    if not value.is_constant:
        known = sql.SQL(" AND {} IS NOT NULL").format(given)
    return sql.SQL(
        "UPDATE {mark} ONLY {table} SET {column} = {value} WHERE {rows} AND {column} IS NULL{known}"
    ).format(mark=sql.SQL(MARK), table=table, column=column, value=given, rows=rows, known=known)
