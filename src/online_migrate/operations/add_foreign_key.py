"""add_foreign_key: add NOT VALID in a short lock window, then VALIDATE beside the application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar, Literal

import psycopg
from psycopg import sql
from pydantic import Field

from online_migrate.backfill.hazards.filled_column import planned_columns
from online_migrate.backfill.hazards.rights import (
    read_forced_hazards,
    read_parent_hazards,
    read_right_hazards,
)
from online_migrate.backfill.hazards.row_reads import error_text, find_rows
from online_migrate.backfill.rows import describe_rows
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
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import AddsForeignKey, Effect, ReadsColumns
from online_migrate.operations.schema_before import plan_context, schema_before
from online_migrate.operations.shared.steps import need, run_long, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import ConstraintInfo, TableInfo
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.rehearsal import temporary_copy
from online_migrate.postgres.sqlstate import ErrorClass, error_class

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES"
_OTHERWISE = re.compile(r" (?:DEFERRABLE|ON UPDATE|MATCH)\b")
_IS_NOT_NULL = """
WITH RECURSIVE type (oid) AS (
  SELECT atttypid FROM pg_attribute WHERE attrelid = %s AND attname = %s
  UNION SELECT t.typbasetype FROM pg_type t JOIN type USING (oid) WHERE t.typtype = 'd')
SELECT coalesce(bool_or(t.typnotnull), false) FROM pg_type t JOIN type USING (oid)"""
"""a domain may be NOT NULL, or be based on one that is"""
_ACTIONS = {"no action": "a", "restrict": "r", "cascade": "c", "set null": "n"}


class AddForeignKeyParams(TableParams):
    """A foreign key of one column."""

    column: str
    """column that references the parent"""
    references: str = Field(pattern=r"^\w+\.\w+$")
    """parent and its unique column, as table.column"""
    on_delete: Literal["no action", "restrict", "cascade", "set null"] = "no action"
    """what PostgreSQL does with the rows when their parent is deleted"""
    name: str = "<table>_<column>_fkey"
    """name of the constraint; <table> and <column> stand for their names"""

    @property
    def parent(self) -> str:
        return self.references.split(".")[0]

    @property
    def parent_column(self) -> str:
        return self.references.split(".")[1]


class AddForeignKey(Operation[AddForeignKeyParams]):
    """Add a foreign key NOT VALID in a short lock window, then validate it.

    What it does: from the first statement on, PostgreSQL checks every row that is written. VALIDATE
    CONSTRAINT then reads the table once and proves the old rows. `check` looks for rows without a parent, and
    tries the foreign key between empty copies of the tables. A valid foreign key with the same definition is
    adopted, whatever its name.

    Locks: SHARE ROW EXCLUSIVE on both tables in one lock window, which blocks writers; then SHARE UPDATE
    EXCLUSIVE on the table and ROW SHARE on the parent for one scan, which block no reads or writes.

    Partitioned tables: so for each partition; then the root gets the same key, which adopts theirs and reads
    no row, in one window with SHARE ROW EXCLUSIVE on all of them and ACCESS EXCLUSIVE on the parent.

    On a crash: the foreign key may remain NOT VALID. The next run validates it.

    How to undo: ALTER TABLE … DROP CONSTRAINT. It locks both tables with ACCESS EXCLUSIVE.
    """

    name = "add_foreign_key"
    phase = Phase.CONTRACT
    summary = "add a foreign key NOT VALID, then validate it"
    descendants = Descendants.APART
    takes_partitions = True
    Params: ClassVar[type[AddForeignKeyParams]] = AddForeignKeyParams

    def title(self, params: AddForeignKeyParams) -> str:
        return f"add_foreign_key {params.column}"

    def effects(self, place: Place, params: AddForeignKeyParams) -> tuple[Effect, ...]:
        return (
            ReadsColumns(table=params.parent, columns=(params.parent_column,)),
            AddsForeignKey(
                table=place.table,
                name=self._name(place, params),
                column=params.column,
                ref_table=params.parent,
                ref_column=params.parent_column,
                on_delete=params.on_delete,
            ),
        )

    def statements(self, place: Place, params: AddForeignKeyParams) -> tuple[Statement, ...]:
        if not place.is_partitioned:
            return self._of_one(place, params)
        leaves = [self._of_one(leaf, params) for leaf in place.leaves()]
        numbered = [replace(s, group=s.group + 2 * n) for n, each in enumerate(leaves) for s in each]
        return (*numbered, replace(self._on_root(place, params), group=2 * len(leaves)))

    def rehearsed(self, place: Place, params: AddForeignKeyParams) -> tuple[Statement, ...]:
        """Of a partitioned table: on its partitions."""
        if not place.is_partitioned:
            return super().rehearsed(place, params)
        return tuple(self._of_one(leaf, params)[0] for leaf in place.leaves())

    def _on_root(self, place: Place, params: AddForeignKeyParams) -> Statement:
        """The key of the root adopts the equal valid keys of all its partitions, and reads no row."""
        add = sql.SQL(
            "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) ON DELETE {}"
        ).format(
            place.sql_table,
            sql.Identifier(self._name(place, params)),
            sql.Identifier(params.column),
            sql.Identifier(place.plan.schema, params.parent),
            sql.Identifier(params.parent_column),
            sql.SQL(params.on_delete.upper()),
        )
        parent = need(place.plan.schema, params.parent, LockMode.ACCESS_EXCLUSIVE)
        family = (need(*names, LockMode.SHARE_ROW_EXCLUSIVE) for names in place.family)
        return Statement(
            sql=add,
            kind=Kind.WINDOW,
            locks=(parent, *family),
            note="adopts the keys of the partitions: no scan",
        )

    def _of_one(self, place: Place, params: AddForeignKeyParams) -> tuple[Statement, Statement]:
        """Of a table that is not partitioned."""
        there = None if place.catalog is None else self._planned(place, params)
        name = sql.Identifier(self._name(place, params) if there is None else there.name)
        add = sql.SQL(
            "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) ON DELETE {} NOT VALID"
        ).format(
            place.sql_table,
            name,
            sql.Identifier(params.column),
            sql.Identifier(place.plan.schema, params.parent),
            sql.Identifier(params.parent_column),
            sql.SQL(params.on_delete.upper()),
        )
        validate = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(place.sql_table, name)
        strong = tuple(
            need(*names, LockMode.SHARE_ROW_EXCLUSIVE)
            for names in ((place.plan.schema, params.parent), (place.schema, place.table))
        )
        scan = (
            need(place.schema, place.table, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True),
            need(place.plan.schema, params.parent, LockMode.ROW_SHARE, is_long=True),
        )
        return (
            Statement(sql=add, kind=Kind.WINDOW, locks=strong),
            Statement(sql=validate, kind=Kind.LONG, locks=scan, group=1),
        )

    def preflight(self, place: Place, params: AddForeignKeyParams) -> list[Finding]:
        name = self._name(place, params)
        findings = []
        if len(name.encode()) > 63:
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="name_too_long",
                    fact=f"{name!r} is longer than 63 bytes",
                    remedy="give `name`",
                )
            )
        if self.state(place, params) is State.CONFLICT:
            there = ", ".join(f"{c.name} {c.definition}" for c in self._against(place, params))
            fact = f"where {place.table} should have {name} {self._definition(params)} it has {there}"
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="foreign_key_conflict",
                    fact=fact,
                    remedy="drop it, or change the plan",
                    manual=MANUAL,
                )
            )
        findings += self._never_null(place, params)
        unknown = self._unknown_parent(place, params)
        return [*findings, *unknown, *([] if findings or unknown else self._seen(place, params))]

    def _never_null(self, place: Place, params: AddForeignKeyParams) -> list[Finding]:
        """`on_delete: set null` on a column that is NOT NULL: each delete of a
        parent with rows would fail.
        """
        table = place.known.table(place.table)
        if params.on_delete != "set null" or table is None or params.column not in table.columns:
            return []
        row = place.known.connection.execute(_IS_NOT_NULL, [table.oid, params.column]).fetchone()
        assert row is not None  # an aggregate without GROUP BY has one row
        if not (row[0] or table.columns[params.column].is_not_null):
            return []
        fact = (
            f"`on_delete: set null` writes NULL into {place.table}.{params.column}, which is NOT NULL: no"
            " parent row"
            " with such rows could be deleted (23502)"
        )
        remedy = "write `on_delete: cascade` or `on_delete: restrict`"
        return [_finding(Severity.STOP, "set_null_not_null", fact, remedy)]

    def _seen(self, place: Place, params: AddForeignKeyParams) -> Iterator[Finding]:
        """Does the server make such a key, and do all rows have their parent?"""
        child, parent = place.known.table(place.table), place.known.table(params.parent)
        connection, state = place.known.connection, self.state(place, params)
        if child is None or parent is None or child.kind not in "rp" or state is State.DONE:
            return
        column = params.parent_column if params.parent_column in parent.columns else None
        yield from read_parent_hazards(connection, parent, column)
        yield from read_forced_hazards(connection, (child, parent))
        if any(read_right_hazards(connection, table, ("SELECT",)) for table in (child, parent)):
            return
        if child.kind == "p":
            for leaf in place.leaves():
                info = leaf.known.table(leaf.table)
                yield from () if info is None else self._orphans(leaf, params, info)
            return
        refused = [] if state is State.PARTIAL else list(self._refused(place, params, child, parent))
        yield from refused
        if not refused:
            yield from self._orphans(place, params, child)

    def _refused(
        self, place: Place, params: AddForeignKeyParams, child: TableInfo, parent: TableInfo
    ) -> Iterator[Finding]:
        """Let the server make it between empty copies; not where a step above may still build the unique that
        it needs.
        """
        connection, planned = place.known.connection, plan_context(place)
        if params.column not in child.columns and (child.name, params.column) not in planned.added:
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
                        *map(sql.Identifier, (child.name, params.column, parent.name, params.parent_column))
                    )
                )
        except psycopg.Error as error:
            trouble = error_class(error)
            if trouble not in (ErrorClass.PROGRAM, ErrorClass.LOCK):
                raise
            key = f"{place.table}.{params.column} to {params.references}"
            if error.sqlstate == "42804":
                types = error.diag.message_detail or ""  # names columns and types; the copies have no rows
                fact = f"the server refuses a foreign key of {key}: {error_text(error)}: {types}"
                yield _finding(Severity.STOP, "foreign_key_refused", fact, "correct `column` or `references`")
            elif error.sqlstate in ("42830", "55000"):
                is_sure = not self._is_unique_planned(place, params)
                fact = f"the server refuses a foreign key of {key}: {error_text(error)}"
                remedy = (
                    f"make {params.references} unique first, by an index without WHERE that is not deferrable"
                )
                yield _finding(
                    Severity.STOP if is_sure else Severity.WARN, "foreign_key_refused", fact, remedy
                )
            else:
                fact = f"could not verify that the server accepts a foreign key of {key}: {error_text(error)}"
                yield _finding(
                    Severity.WARN,
                    "foreign_key_unknown",
                    fact,
                    f"compare the types, and see that {params.references} is unique",
                )

    def _is_unique_planned(self, place: Place, params: AddForeignKeyParams) -> bool:
        """An earlier step builds the unique that the foreign key needs."""
        parent = schema_before(place).table(params.parent)
        indexes = () if parent is None else parent.planned_indexes(params.parent_column)
        return any(i.is_unique and len(i.columns) == 1 and not i.has_predicate for i in indexes)

    def _orphans(self, place: Place, params: AddForeignKeyParams, child: TableInfo) -> Iterator[Finding]:
        """Rows whose value no parent has.  The plan may still make that parent, and behind a gate the
        application else may.
        """
        if params.column not in child.columns or params.parent in plan_context(place).made:
            return
        column, parent = sql.Identifier(params.column), sql.Identifier(place.plan.schema, params.parent)
        query = sql.SQL(
            "SELECT child.ctid::text FROM ONLY {} child WHERE child.{} IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM {} parent WHERE parent.{} {} child.{}) LIMIT 3"
        ).format(
            place.sql_table,
            column,
            parent,
            sql.Identifier(params.parent_column),
            place.equals(place.table, params.column),
            column,
        )
        try:
            found = find_rows(place.known.connection, query)
        except psycopg.Error as error:
            if error_class(error) not in (ErrorClass.PROGRAM, ErrorClass.LOCK):
                raise
            fact = (
                f"{place.table}: could not verify that every {params.column} has a row in {params.parent}:"
                f" {error_text(error)}"
            )
            yield _finding(
                Severity.WARN, "orphans_unknown", fact, "before the run, look for rows without one"
            )
            return
        if found:
            rows = describe_rows(place.known.connection, child, found)
            fact = f"{place.table} has rows whose {params.column} has no {params.references}: {rows}"
            severity = Severity.WARN if place.is_behind_a_gate else Severity.STOP
            yield _finding(severity, "orphans", fact, "fix these rows, or add their parents")

    def _unknown_parent(self, place: Place, params: AddForeignKeyParams) -> list[Finding]:
        """Neither the catalog has the parent's column, nor does an earlier step make it."""
        parent = schema_before(place).table(params.parent)
        if parent is not None and not parent.lacks(params.parent_column):
            return []
        fact = f"{place.table}.{params.column} should reference {params.references}, which does not exist"
        return [
            Finding(severity=Severity.STOP, code="parent_missing", fact=fact, remedy="correct `references`")
        ]

    def state(self, place: Place, params: AddForeignKeyParams) -> State:
        planned = self._planned(place, params)
        if planned is not None:
            return State.DONE if planned.is_valid else State.PARTIAL
        return State.CONFLICT if self._against(place, params) else State.ABSENT

    def _planned(self, place: Place, params: AddForeignKeyParams) -> ConstraintInfo | None:
        """The foreign key as planned, whatever its name; a valid one first."""
        table = place.known.table(place.table)
        same = [c for c in table.foreign_keys if self._is_planned(c, params)] if table is not None else []
        return max(same, key=lambda c: c.is_valid, default=None)

    def _against(self, place: Place, params: AddForeignKeyParams) -> list[ConstraintInfo]:
        """What has its name, or leads from its column to its parent otherwise than planned."""
        table = place.known.table(place.table)
        return [
            c
            for c in (() if table is None else table.constraints)
            if c.name == self._name(place, params)
            or (c.kind == "f" and c.columns == (params.column,) and c.ref_table == params.parent)
        ]

    def execute(self, context: Context, params: AddForeignKeyParams) -> int:
        if not context.place.is_partitioned:
            return self._execute_one(context, params)
        if self.state(context.place, params) is not State.DONE:
            for leaf in context.place.leaves():
                self._execute_one(context.at((leaf.schema, leaf.table)), params)
            run_window(context, [self._on_root(context.place, params)])
        return 0

    def _execute_one(self, context: Context, params: AddForeignKeyParams) -> int:
        state = self.state(context.place, params)
        if state is State.DONE:
            return 0
        add, validate = self._of_one(context.place, params)
        if state is State.ABSENT:
            run_window(context, [add])
        try:
            run_long(context, validate)
        except psycopg.errors.ForeignKeyViolation as error:
            raise VerificationFailed(
                f"{context.place.table}.{params.column}: {error.diag.message_primary};"
                f" {error.diag.message_detail}",
                remedy=f"fix the rows whose {params.column} has no {params.references}, then run the same"
                " command again",
            ) from error
        return 0

    def verify(self, place: Place, params: AddForeignKeyParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = (
            f"the foreign key of {place.table}.{params.column} to {params.references} was dropped or is"
            " not valid"
        )
        return [
            Finding(
                severity=Severity.STOP,
                code="foreign_key_gone",
                fact=fact,
                remedy="find out who changed it",
                manual=MANUAL,
            )
        ]

    def _name(self, place: Place, params: AddForeignKeyParams) -> str:
        return place.fill(params.name).replace("<column>", params.column)

    def _is_planned(self, constraint: ConstraintInfo, params: AddForeignKeyParams) -> bool:
        """By definition: also not deferrable, and without an action ON UPDATE."""
        return (
            constraint.columns == (params.column,)
            and constraint.ref_table == params.parent
            and constraint.ref_columns == (params.parent_column,)
            and constraint.on_delete == _ACTIONS[params.on_delete]
            and not _OTHERWISE.search(constraint.definition)
        )

    def _definition(self, params: AddForeignKeyParams) -> str:
        action = "" if params.on_delete == "no action" else f" ON DELETE {params.on_delete.upper()}"
        return f"FOREIGN KEY ({params.column}) REFERENCES {params.parent}({params.parent_column}){action}"


def _finding(severity: Severity, code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=severity, code=code, fact=fact, remedy=remedy, manual=MANUAL)
