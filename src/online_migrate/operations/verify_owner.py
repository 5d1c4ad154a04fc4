"""verify_owner: prove that every row has an owner, and the same owner as its parents within the table set."""

from __future__ import annotations

from typing import ClassVar

import psycopg
from psycopg import sql

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
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import Catalog, ConstraintInfo
from online_migrate.postgres.long_statement import tell_meanwhile


class VerifyOwnerParams(TableParams):
    """The column that names the owner of a row."""

    column: str
    """column that names the owner, the same in every table of the step"""


class VerifyOwner(Operation[VerifyOwnerParams]):
    """Prove that no row lacks an owner, and that child and parent have the same owner along every foreign key
    of the set.

    What it does: one query a table for NULLs, and one for each foreign key between two tables of the step.
    Each stops at the first rows that it finds. Rows that differ end the run with exit code 5 and are named.

    Locks: ACCESS SHARE. It writes nothing; each query holds a snapshot while it reads.

    On a crash: nothing is left behind; the next run starts it again.

    How to undo: nothing to undo.
    """

    name = "verify_owner"
    phase = Phase.CONTRACT
    is_verified_at_once = False
    only_verifies = True
    summary = "prove that every row has an owner, the same as its parents"
    Params: ClassVar[type[VerifyOwnerParams]] = VerifyOwnerParams

    def title(self, params: VerifyOwnerParams) -> str:
        return f"verify_owner {params.column}"

    def effects(self, place: Place, params: VerifyOwnerParams) -> tuple[Effect, ...]:
        return (ReadsColumns(table=place.table, columns=(params.column,)),)

    def statements(self, place: Place, params: VerifyOwnerParams) -> tuple[Statement, ...]:
        column = sql.Identifier(params.column)
        nulls = sql.SQL("SELECT ctid::text FROM {} WHERE {} IS NULL LIMIT 3").format(place.sql_table, column)
        found = [Statement(sql=nulls, kind=Kind.READ, note="no row without an owner")]
        found += [
            Statement(
                sql=self._strangers(place, key, params.column),
                kind=Kind.READ,
                note=f"as {key.ref_table}, along {key.name}",
            )
            for key in self._keys(place, params)
        ]
        return tuple(found)

    def _strangers(self, place: Place, key: ConstraintInfo, name: str) -> sql.Composed:
        """IS DISTINCT FROM names no operator, so it would look for one on the search_path."""
        column = sql.Identifier(name)
        join = sql.SQL(" AND ").join(
            sql.SQL("child.{} {} parent.{}").format(
                sql.Identifier(c), place.equals(place.table, c), sql.Identifier(p)
            )
            for c, p in zip(key.columns, key.ref_columns, strict=True)
        )
        owners = sql.SQL("child.{} {} parent.{}").format(column, place.equals(place.table, name), column)
        return sql.SQL(
            "SELECT child.ctid::text FROM {} child JOIN {} parent ON {} WHERE (child.{} IS NULL) <>"
            " (parent.{} IS NULL)"
            " OR NOT {} LIMIT 3"
        ).format(
            place.sql_table, sql.Identifier(place.schema, str(key.ref_table)), join, column, column, owners
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
            if k.ref_table in members and k.ref_schema == place.schema and params.column not in k.columns
        )

    def preflight(self, place: Place, params: VerifyOwnerParams) -> list[Finding]:
        fact = (
            f"verify_owner {params.column} reads each of its tables as a whole, and its parents; each query"
            " holds a"
            f" snapshot for as long, at most {place.plan.locks.long_statement:.0f} s"
        )
        remedy = "locks.long_statement bounds it; run it when few rows are written"
        return [Finding(severity=Severity.INFO, code="reads_all", fact=fact, remedy=remedy)]

    def state(self, place: Place, params: VerifyOwnerParams) -> State:  # noqa: ARG002
        return State.ABSENT

    def execute(self, context: Context, params: VerifyOwnerParams) -> int:
        with tell_meanwhile(context.step.spec.title, clock=context.clock, emit=context.emit):
            findings = self._look(context.place, context.fresh_catalog(), params)
        if findings:
            raise VerificationFailed("\n".join(f.fact for f in findings), remedy=findings[0].remedy)
        return 0

    def verify(self, place: Place, params: VerifyOwnerParams) -> list[Finding]:
        return self._look(place, place.known, params)

    def _look(self, place: Place, catalog: Catalog, params: VerifyOwnerParams) -> list[Finding]:
        findings = []
        for statement in self.statements(place, params):
            try:
                rows = self._read(place, catalog, statement)
            except psycopg.errors.QueryCanceled:
                bound = f"after {place.plan.locks.long_statement:.0f} s at most"
                fact = (
                    f"{place.table}.{params.column}: not proven ({statement.note}): the query was ended,"
                    f" {bound}"
                )
                remedy = (
                    "give locks.long_statement more time, or see who cancelled it; then run the same"
                    " command again"
                )
                findings.append(
                    Finding(severity=Severity.STOP, code="owner_unknown", fact=fact, remedy=remedy)
                )
                continue
            if rows:
                fact = (
                    f"{place.table}.{params.column}: not as promised ({statement.note}), e.g. at ctid"
                    f" {', '.join(r[0] for r in rows)}"
                )
                remedy = (
                    "these rows have another owner than their parent, or none: fix them, then run the"
                    " same command again"
                )
                findings.append(Finding(severity=Severity.STOP, code="owner", fact=fact, remedy=remedy))
        return findings

    def _read(self, place: Place, catalog: Catalog, statement: Statement) -> list[tuple[str]]:
        """Reads only, and ends by itself; Ctrl-C cancels it, as psycopg does with every statement."""
        limit = sql.Literal(f"{place.plan.locks.long_statement * 1000:.0f}ms")
        with catalog.connection.transaction():
            catalog.connection.execute("SET TRANSACTION READ ONLY")
            catalog.connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(limit))
            return catalog.connection.execute(statement.sql).fetchall()
