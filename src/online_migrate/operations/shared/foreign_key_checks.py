"""What `check` asks of a foreign key: does the server accept it, and has every row its parent?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.backfill.hazards.filled_column import planned_columns
from online_migrate.backfill.hazards.row_reads import error_text, find_rows
from online_migrate.backfill.rows import describe_rows
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Place
from online_migrate.operations.schema_before import plan_context, schema_before
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.rehearsal import temporary_copy
from online_migrate.postgres.sqlstate import ErrorClass, error_class

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A foreign key of one column."""

    column: str
    parent: str
    parent_column: str

    @property
    def references(self) -> str:
        return f"{self.parent}.{self.parent_column}"


def find_refusal(place: Place, key: Key, child: TableInfo, parent: TableInfo) -> Iterator[Finding]:
    """Let the server make it between empty copies; not where a step above may still build the unique that
    it needs.
    """
    connection, planned = place.known.connection, plan_context(place)
    if key.column not in child.columns and (child.name, key.column) not in planned.added:
        return
    try:
        with connection.transaction(force_rollback=True), ExitStack() as stack:
            for table in dict.fromkeys((child.name, parent.name)):
                info = child if table == child.name else parent
                added = planned_columns(info, planned)
                stack.enter_context(
                    temporary_copy(connection, info, added, with_indexes=table == parent.name)
                )
            connection.execute(
                sql.SQL("ALTER TABLE pg_temp.{} ADD FOREIGN KEY ({}) REFERENCES pg_temp.{} ({})").format(
                    *map(sql.Identifier, (child.name, key.column, parent.name, key.parent_column))
                )
            )
    except psycopg.Error as error:
        trouble = error_class(error)
        if trouble not in (ErrorClass.PROGRAM, ErrorClass.LOCK):
            raise
        leads = f"{place.table}.{key.column} to {key.references}"
        if error.sqlstate == "42804":
            types = error.diag.message_detail or ""  # names columns and types; the copies have no rows
            fact = f"the server refuses a foreign key of {leads}: {error_text(error)}: {types}"
            yield _finding(Severity.STOP, "foreign_key_refused", fact, "correct `column` or `references`")
        elif error.sqlstate in ("42830", "55000"):
            is_sure = not _is_unique_planned(place, key)
            fact = f"the server refuses a foreign key of {leads}: {error_text(error)}"
            remedy = f"make {key.references} unique first, by an index without WHERE that is not deferrable"
            yield _finding(Severity.STOP if is_sure else Severity.WARN, "foreign_key_refused", fact, remedy)
        else:
            fact = f"could not verify that the server accepts a foreign key of {leads}: {error_text(error)}"
            yield _finding(
                Severity.WARN,
                "foreign_key_unknown",
                fact,
                f"compare the types, and see that {key.references} is unique",
            )


def _is_unique_planned(place: Place, key: Key) -> bool:
    """An earlier step builds the unique that the foreign key needs."""
    parent = schema_before(place).table(key.parent)
    indexes = () if parent is None else parent.planned_indexes(key.parent_column)
    return any(i.is_unique and len(i.columns) == 1 and not i.has_predicate for i in indexes)


def find_orphans(place: Place, key: Key, child: TableInfo) -> Iterator[Finding]:
    """Rows whose value no parent has.  The plan may still make that parent, and behind a gate the
    application else may.
    """
    if key.column not in child.columns or key.parent in plan_context(place).made:
        return
    column, parent = sql.Identifier(key.column), sql.Identifier(place.plan.schema, key.parent)
    query = sql.SQL(
        "SELECT child.ctid::text FROM ONLY {} child WHERE child.{} IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM {} parent WHERE parent.{} {} child.{}) LIMIT 3"
    ).format(
        place.sql_table,
        column,
        parent,
        sql.Identifier(key.parent_column),
        place.equals(place.table, key.column),
        column,
    )
    try:
        found = find_rows(place.known.connection, query)
    except psycopg.Error as error:
        if error_class(error) not in (ErrorClass.PROGRAM, ErrorClass.LOCK):
            raise
        fact = (
            f"{place.table}: could not verify that every {key.column} has a row in {key.parent}:"
            f" {error_text(error)}"
        )
        yield _finding(Severity.WARN, "orphans_unknown", fact, "before the run, look for rows without one")
        return
    if found:
        rows = describe_rows(place.known.connection, child, found)
        fact = f"{place.table} has rows whose {key.column} has no {key.references}: {rows}"
        severity = Severity.WARN if place.is_behind_a_gate else Severity.STOP
        yield _finding(severity, "orphans", fact, "fix these rows, or add their parents")


def _finding(severity: Severity, code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=severity, code=code, fact=fact, remedy=remedy, manual=MANUAL)
