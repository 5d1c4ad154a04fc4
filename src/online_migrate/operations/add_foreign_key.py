"""add_foreign_key: add NOT VALID in a short lock window, then VALIDATE beside the application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import psycopg
from psycopg import sql
from pydantic import Field

from online_migrate.backfill.hazards.rights import (
    read_forced_hazards,
    read_parent_hazards,
    read_right_hazards,
)
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
from online_migrate.operations.schema_before import schema_before
from online_migrate.operations.shared.dropped_partitions import unless_dropped
from online_migrate.operations.shared.duplicates import secret_columns
from online_migrate.operations.shared.foreign_key_checks import Key, find_orphans, find_refusal
from online_migrate.operations.shared.steps import need, run_long, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import ConstraintInfo
from online_migrate.postgres.locks import LockMode

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
    def key(self) -> Key:
        return Key(column=self.column, parent=self.parent, parent_column=self.parent_column)

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
        leaves = tuple(self._of_one(leaf, params)[0] for leaf in place.leaves())
        return leaves or (self._on_root(place, params),)

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
        if self.state(place, params) is not State.DONE:
            places = (place, *(place.leaves() if place.is_partitioned else ()))
            findings += [self._conflict(p, params) for p in places if self.state(p, params) is State.CONFLICT]
        findings += self._never_null(place, params)
        unknown = self._unknown_parent(place, params)
        return [*findings, *unknown, *([] if findings or unknown else self._seen(place, params))]

    def _conflict(self, place: Place, params: AddForeignKeyParams) -> Finding:
        there = ", ".join(f"{c.name} {c.definition}" for c in self._against(place, params))
        name, wanted = self._name(place, params), self._definition(params)
        fact = f"where {place.table} should have {name} {wanted} it has {there}"
        return _finding(Severity.STOP, "foreign_key_conflict", fact, "drop it, or change the plan")

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
                yield from () if info is None else find_orphans(leaf, params.key, info)
            return
        refused = [] if state is State.PARTIAL else list(find_refusal(place, params.key, child, parent))
        yield from refused
        if not refused:
            yield from find_orphans(place, params.key, child)

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
            for leaf in _leaves_that_come(context):
                with unless_dropped(context.place, (leaf.schema, leaf.table)):
                    self._execute_one(context.at((leaf.schema, leaf.table)), params)
            place = replace(context.place, catalog=context.fresh_catalog())
            run_window(context, [self._on_root(place, params)])
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
                f" {_detail(context.place, params, error)}",
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


def _detail(place: Place, params: AddForeignKeyParams, error: psycopg.Error) -> str:
    """The server's own words, which quote the value."""
    is_secret = params.column in secret_columns(place)
    return "(the value is not shown)" if is_secret else str(error.diag.message_detail)


def _finding(severity: Severity, code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=severity, code=code, fact=fact, remedy=remedy, manual=MANUAL)


def _leaves_that_come(context: Context) -> Iterator[Place]:
    """Each partition with rows, also one that is attached meanwhile: the root's key would read its rows under
    strong locks.
    """
    seen = set[tuple[str, str]]()
    while True:
        place = replace(context.place, catalog=context.fresh_catalog())
        left = [p for p in place.leaves() if (p.schema, p.table) not in seen]
        if not left:
            return
        for leaf in left:
            seen.add((leaf.schema, leaf.table))
            yield leaf
