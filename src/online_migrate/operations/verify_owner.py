"""verify_owner: prove that every row has an owner, and the same owner as its parents within the table set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import psycopg
from psycopg import sql
from pydantic import Field

from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.backfill.hazards.row_reads import error_text, find_rows
from online_migrate.errors import VerificationFailed
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Context,
    Kind,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.effects import Effect, ReadsColumns
from online_migrate.operations.shared.derived_owners import derived_value
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import Catalog, ConstraintInfo
from online_migrate.postgres.long_statement import report_meanwhile
from online_migrate.postgres.search_path import SearchPath
from online_migrate.postgres.sqlstate import ErrorClass, error_class

SAMPLE_ROWS = 200_000
"""of a table with more rows, `check` reads about as many"""


class VerifyOwnerParams(TableParams):
    """The column that names the owner of a row."""

    column: str
    """column that names the owner, the same in every table of the step"""
    except_: list[str] = Field(default_factory=list, alias="except")
    """names of foreign keys along which child and parent may have different owners"""


class VerifyOwner(Operation[VerifyOwnerParams]):
    """Prove that no row lacks an owner, and that child and parent have the same owner along every foreign key
    of the set.

    What it does: one query a table for NULLs, and one for each foreign key between two tables of the step.
    Each stops at the first rows that it finds. Rows that differ end the run with exit code 5; they are
    counted, and named by their keys. `check` looks for such rows before the first stage, by the values that
    the plan will give them: for at most 5 seconds a foreign key, in a sample of a large table. `except`
    leaves a foreign key out.

    Locks: ACCESS SHARE. It writes nothing; each query holds a snapshot while it reads.

    On a crash: nothing is left behind; the next run starts it again.

    How to undo: nothing to undo.
    """

    name = "verify_owner"
    phase = Phase.CONTRACT
    is_verified_at_once = False
    only_verifies = True
    needs_owner = False
    summary = "prove that every row has an owner, the same as its parents"
    Params: ClassVar[type[VerifyOwnerParams]] = VerifyOwnerParams

    def title(self, params: VerifyOwnerParams) -> str:
        return f"verify_owner {params.column}"

    def effects(self, place: Place, params: VerifyOwnerParams) -> tuple[Effect, ...]:
        return (ReadsColumns(table=place.table, columns=(params.column,)),)

    def statements(self, place: Place, params: VerifyOwnerParams) -> tuple[Statement, ...]:
        return tuple(
            Statement(
                sql=sql.SQL("SELECT {} {} LIMIT 3").format(self._named(place, row), rows),
                kind=Kind.READ,
                note=note,
            )
            for note, row, rows in self._proofs(place, params)
        )

    def _proofs(self, place: Place, params: VerifyOwnerParams) -> list[tuple[str, str, sql.Composed]]:
        """What is proven, the name of its row, and FROM … WHERE of rows that differ."""
        column = sql.Identifier(params.column)
        nulls = sql.SQL("FROM {} WHERE {} IS NULL").format(place.sql_table, column)
        found = [("no row without an owner", place.table, nulls)]
        for key in self._keys(place, params):
            rows = self._strangers(place, key, params.column)
            found.append((f"as {key.ref_table}, along {key.name}", "child", rows))
        return found

    def _named(self, place: Place, row: str) -> sql.Composable:
        """The row as text by its primary key, ``id = 4711``; by ctid where there is none or no database."""
        table = None if place.catalog is None else place.known.table(place.table)
        key = () if table is None else next((c.columns for c in table.constraints if c.kind == "p"), ())
        if not key:
            return sql.SQL("{}ctid::text").format(sql.SQL("child." if row == "child" else ""))
        parts = [
            sql.SQL("{}, {}.{}").format(
                sql.Literal(f"{', ' if number else ''}{name} = "), sql.Identifier(row), sql.Identifier(name)
            )
            for number, name in enumerate(key)
        ]
        return sql.SQL("pg_catalog.concat({})").format(sql.SQL(", ").join(parts))

    def _join(self, place: Place, key: ConstraintInfo) -> sql.Composed:
        return sql.SQL(" AND ").join(
            sql.SQL("child.{} {} parent.{}").format(
                sql.Identifier(c), place.equals(place.table, c), sql.Identifier(p)
            )
            for c, p in zip(key.columns, key.ref_columns, strict=True)
        )

    def _strangers(self, place: Place, key: ConstraintInfo, name: str) -> sql.Composed:
        """IS DISTINCT FROM names no operator, so it would look for one on the search_path."""
        column = sql.Identifier(name)
        owners = sql.SQL("child.{} {} parent.{}").format(column, place.equals(place.table, name), column)
        return sql.SQL(
            "FROM {} child JOIN {} parent ON {} WHERE (child.{} IS NULL) <> (parent.{} IS NULL) OR NOT {}"
        ).format(
            place.sql_table,
            sql.Identifier(place.schema, str(key.ref_table)),
            self._join(place, key),
            column,
            column,
            owners,
        )

    def _keys(self, place: Place, params: VerifyOwnerParams) -> tuple[ConstraintInfo, ...]:
        """The table's foreign keys to tables of the same set."""
        table = None if place.catalog is None else place.known.table(place.table)
        members = set(place.tables_of_step)
        if table is None:
            return ()
        return tuple(
            k
            for k in table.foreign_keys
            if k.ref_table in members
            and k.ref_schema == place.schema
            and params.column not in k.columns
            and k.name not in params.except_
        )

    def preflight(self, place: Place, params: VerifyOwnerParams) -> list[Finding]:
        fact = (
            f"verify_owner {params.column} reads each of its tables as a whole, and its parents; each query"
            " holds a"
            f" snapshot for as long, at most {place.plan.locks.long_statement:.0f} s"
        )
        remedy = "locks.long_statement bounds it; run it when few rows are written"
        return [
            Finding(severity=Severity.INFO, code="reads_all", fact=fact, remedy=remedy),
            *self._unknown_exceptions(place, params),
            *(f for key in self._keys(place, params) for f in self._disagreeing(place, key, params.column)),
        ]

    def _unknown_exceptions(self, place: Place, params: VerifyOwnerParams) -> Iterator[Finding]:
        """Names under `except` that are no foreign key of a table of the step."""
        tables = [t for t in map(place.known.table, place.tables_of_step) if t is not None]
        known = {k.name for t in tables for k in t.foreign_keys}
        for name in params.except_:
            if name not in known:
                fact = f"verify_owner {params.column}: {name} under `except` is no foreign key of its tables"
                yield Finding(
                    severity=Severity.STOP,
                    code="unknown_foreign_key",
                    fact=fact,
                    remedy="correct the name, or remove it",
                )

    def _disagreeing(self, place: Place, key: ConstraintInfo, column: str) -> Iterator[Finding]:
        """Rows that will have another owner than their parent, by the values that they have or will get."""
        rows = self._future_strangers(place, key, column)
        if rows is None:
            return
        connection, named = place.known.connection, self._named(place, "child")
        query = sql.SQL("SELECT {} {}").format(named, rows)
        try:
            found = find_rows(connection, sql.SQL("{} LIMIT 3").format(query), SearchPath.PLAN)
        except psycopg.Error as error:
            if error_class(error) not in (ErrorClass.PROGRAM, ErrorClass.LOCK):
                raise
            fact = (
                f"{place.table}: could not verify that its rows will have the owner of {key.ref_table}, along"
                f" {key.name}: {error_text(error)}"
            )
            remedy = "the step itself reads all rows; to know it before the run, look for such rows"
            yield Finding(severity=Severity.WARN, code="owners_unverified", fact=fact, remedy=remedy)
            return
        if found:
            yield Finding(
                severity=Severity.STOP,
                code="owners_disagree",
                fact=f"{place.table}: rows whose {column} will differ from that of {key.ref_table}, along"
                f" {key.name}, for example {'; '.join(found)}",
                remedy=f"fix these rows, or name the foreign key under `except` of verify_owner; list them:"
                f" {query.as_string(None)}",
            )

    def _future_strangers(self, place: Place, key: ConstraintInfo, column: str) -> sql.Composed | None:
        """None where nothing can differ, or a value is not known yet."""
        infos = [place.known.table(t) for t in (place.table, str(key.ref_table))]
        child = derived_value(place, place.table, column, "child")
        parent = derived_value(place, str(key.ref_table), column, "parent")
        if child is None or parent is None or (child.is_constant and parent.is_constant):
            return None
        if child.along == (key.columns[0], key.ref_table) and len(key.columns) == 1:
            return None
        if any(i is None or read_right_hazards(place.known.connection, i, ("SELECT",)) for i in infos):
            return None
        sample: sql.Composable = sql.SQL("")
        rows = 0 if infos[0] is None else infos[0].rows_estimate
        if rows > SAMPLE_ROWS:
            share = sql.Literal(round(100 * SAMPLE_ROWS / rows, 4))
            sample = sql.SQL(" TABLESAMPLE pg_catalog.system ({})").format(share)
        return sql.SQL("FROM {} child{} JOIN {} parent ON {} WHERE NOT ({} {} {})").format(
            place.sql_table,
            sample,
            sql.Identifier(place.schema, str(key.ref_table)),
            self._join(place, key),
            child.sql,
            place.equals(place.table, column),
            parent.sql,
        )

    def state(self, place: Place, params: VerifyOwnerParams) -> State:  # noqa: ARG002
        return State.ABSENT

    def execute(self, context: Context, params: VerifyOwnerParams) -> int:
        with report_meanwhile(context.step.spec.title, clock=context.clock, emit=context.emit):
            findings = self._look(context.place, context.fresh_catalog(), params)
        if findings:
            raise VerificationFailed("\n".join(f.fact for f in findings), remedy=findings[0].remedy)
        return 0

    def verify(self, place: Place, params: VerifyOwnerParams) -> list[Finding]:
        return self._look(place, place.known, params)

    def _look(self, place: Place, catalog: Catalog, params: VerifyOwnerParams) -> list[Finding]:
        findings = []
        for note, row, rows in self._proofs(place, params):
            query = sql.SQL("SELECT {} {}").format(self._named(place, row), rows)
            try:
                found = self._read(place, catalog, sql.SQL("{} LIMIT 3").format(query))
            except psycopg.errors.QueryCanceled:
                findings.append(self._unknown(place, params, note))
                continue
            if found:
                fact = (
                    f"{place.table}.{params.column}: not as promised ({note}):"
                    f" {self._count(place, catalog, rows)}, for example {'; '.join(found)}"
                )
                remedy = (
                    "these rows have another owner than their parent, or none: fix them, then run the"
                    f" same command again; list them: {query.as_string(None)}"
                )
                findings.append(Finding(severity=Severity.STOP, code="owner", fact=fact, remedy=remedy))
        return findings

    def _unknown(self, place: Place, params: VerifyOwnerParams, note: str) -> Finding:
        bound = f"after {place.plan.locks.long_statement:.0f} s at most"
        fact = f"{place.table}.{params.column}: not proven ({note}): the query was ended, {bound}"
        remedy = (
            "give locks.long_statement more time, or see who cancelled it; then run the same command again"
        )
        return Finding(severity=Severity.STOP, code="owner_unknown", fact=fact, remedy=remedy)

    def _count(self, place: Place, catalog: Catalog, rows: sql.Composed) -> str:
        """In full; where that takes too long, what is known."""
        query = sql.SQL("SELECT pg_catalog.count(*)::pg_catalog.text {}").format(rows)
        try:
            count = self._read(place, catalog, query)[0]
        except psycopg.errors.QueryCanceled:
            return "some rows"
        return f"{count} {'row' if count == '1' else 'rows'}"

    def _read(self, place: Place, catalog: Catalog, query: sql.Composed) -> list[str]:
        """Reads only, and ends by itself; Ctrl-C cancels it, as psycopg does with every statement."""
        limit = sql.Literal(f"{place.plan.locks.long_statement * 1000:.0f}ms")
        with catalog.connection.transaction():
            catalog.connection.execute("SET TRANSACTION READ ONLY")
            catalog.connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(limit))
            return [text for (text,) in catalog.connection.execute(query).fetchall()]
