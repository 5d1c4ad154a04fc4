"""set_not_null: prove, CHECK … NOT VALID, VALIDATE, SET NOT NULL; no scan under a strong lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import psycopg
from psycopg import sql

from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.backfill.hazards.row_reads import error_text, find_rows
from online_migrate.backfill.rows import describe_rows
from online_migrate.backfill.value_params import value_of
from online_migrate.backfill.worker import Backfill as TableBackfill
from online_migrate.errors import VerificationFailed
from online_migrate.figures import short_seconds_text
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
from online_migrate.operations.contract.effects import AddsColumn, Effect, FillsColumn, MakesNotNull
from online_migrate.operations.schema_before import plan_context, schema_before
from online_migrate.operations.shared.owed_check import OwedCheck
from online_migrate.operations.shared.steps import backfill_context, need, run_long, run_window
from online_migrate.plan.model import Phase, Step
from online_migrate.postgres.catalog import Catalog, ConstraintInfo
from online_migrate.postgres.insert_values import read_givers
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.long_statement import report_meanwhile
from online_migrate.postgres.names import short_name

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html"
PREFIX, SUFFIX = "online_migrate_", "_not_null"
ROUNDS = 5
"""times that a NULL written between proof and check is fixed before the error says that a session keeps
writing them
"""


class SetNotNullParams(TableParams):
    """The column that becomes NOT NULL."""

    column: str
    """column that every row must have a value in"""


class SetNotNull(Operation[SetNotNullParams]):
    """Make a column NOT NULL without a scan under a strong lock.

    What it does: proves by one statement that no row has a NULL, adds CHECK (column IS NOT NULL) NOT VALID,
    validates it, then SET NOT NULL, which trusts the valid check and scans nothing, and drops the check.
    Where a NULL is written in between, the check is dropped at once, the backfill of the column fills the
    row, and the step starts again.

    Locks: ACCESS EXCLUSIVE on the table in two lock windows; between them SHARE UPDATE EXCLUSIVE for one
    scan, which blocks no reads or writes.

    Partitioned tables: the same on the root, which takes its partitions along: the two windows lock all of
    them at once, and no row is read in them.

    On a crash: the helper check may remain. While it is not valid, an UPDATE of a row that still has a NULL
    fails (23514). The next run of the same command drops or validates it first; an error names the statement
    that drops it.

    How to undo: ALTER COLUMN … DROP NOT NULL.
    """

    name = "set_not_null"
    phase = Phase.CONTRACT
    summary = "make a column NOT NULL without a scan under a strong lock"
    descendants = Descendants.REFUSED
    takes_partitions = True
    Params: ClassVar[type[SetNotNullParams]] = SetNotNullParams

    def title(self, params: SetNotNullParams) -> str:
        return f"set_not_null {params.column}"

    def effects(self, place: Place, params: SetNotNullParams) -> tuple[Effect, ...]:
        return (MakesNotNull(table=place.table, column=params.column),)

    def statements(self, place: Place, params: SetNotNullParams) -> tuple[Statement, ...]:
        table, column, check = (
            place.sql_table,
            sql.Identifier(params.column),
            sql.Identifier(self._helper(place, params)),
        )
        family = place.family if place.is_partitioned else ((place.schema, place.table),)
        strong = tuple(need(*names, LockMode.ACCESS_EXCLUSIVE) for names in family)
        scan = tuple(need(*names, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True) for names in family)
        add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({} IS NOT NULL) NOT VALID").format(
            table, check, column
        )
        validate = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(table, check)
        set_ = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(table, column)
        note, quiet_s = "the proof: one statement, one snapshot, no row", self._quiet_s(place, params)
        if quiet_s:
            note += f", and none seen for {short_seconds_text(quiet_s)}"
        return (
            Statement(sql=self._proof(place, params), kind=Kind.READ, note=note),
            Statement(sql=add, kind=Kind.WINDOW, locks=strong, group=1),
            Statement(sql=validate, kind=Kind.LONG, locks=scan, group=2),
            Statement(sql=set_, kind=Kind.WINDOW, locks=strong, group=3),
            Statement(sql=self._drop(place, params), kind=Kind.WINDOW, locks=strong, group=3),
        )

    def preflight(self, place: Place, params: SetNotNullParams) -> list[Finding]:
        check = self._check(place.known, place, params)
        if check is None or _is_ours(check, params):
            return [*self._refused_inserts(place, params), *self._unfilled(place, params)]
        fact = (
            f"{place.table} has another constraint of the name that the helper check needs: {check.name}"
            f" {check.definition}"
        )
        return [Finding(severity=Severity.STOP, code="check_conflict", fact=fact, remedy="rename or drop it")]

    def _refused_inserts(self, place: Place, params: SetNotNullParams) -> Iterator[Finding]:
        """An INSERT that does not name the column fails from this step on; reported once, for all tables of
        the step.
        """
        if _has_gate_since(place, params.column) or not self._is_bare(place, params):
            return
        places = (replace(place, step=replace(place.step, table=t)) for t in place.tables_of_step)
        each = (p.table for p in places if self._is_bare(p, params))
        first = next(each, None)
        if first != place.table:
            return
        bare = [first, *each]
        fact = (
            f"{params.column} of {', '.join(bare)} has no default: after this step an INSERT that does not"
            " name it"
            " fails (23502)"
        )
        remedy = (
            f"give it a default (`new_rows` of its add_column), or give stage {place.step.stage} a gate, and"
            " approve it"
            " once every running release writes the column"
        )
        yield Finding(severity=Severity.WARN, code="inserts_refused", fact=fact, remedy=remedy, manual=MANUAL)

    def _is_bare(self, place: Place, params: SetNotNullParams) -> bool:
        """The table's column is not NOT NULL yet, and nothing gives a new row its value."""
        table = place.known.table(place.table)
        if table is None or self.state(place, params) is State.DONE:
            return False
        planned = schema_before(place).column(place.table, params.column)
        if planned is not None and planned.default_by_plan is not None:
            return not planned.default_by_plan
        return all(giver.is_below for giver in read_givers(place.known.connection, table.oid, params.column))

    def _unfilled(self, place: Place, params: SetNotNullParams) -> Iterator[Finding]:
        """Rows without a value that no step above fills; behind a gate they may be filled before it is
        approved.
        """
        table, planned = place.known.table(place.table), plan_context(place)
        connection, key = place.known.connection, (place.table, params.column)
        if table is None or self.state(place, params) is State.DONE or key in planned.filled_before:
            return
        if read_right_hazards(connection, table, ("SELECT",)):
            return
        is_there = params.column in table.columns
        if not is_there and key not in planned.added:
            return
        empty = sql.SQL("{} IS NULL" if is_there else "true").format(sql.Identifier(params.column))
        only = sql.SQL("" if table.kind == "p" else "ONLY ")
        query = sql.SQL("SELECT ctid::text FROM {}{} WHERE {} LIMIT 3").format(only, place.sql_table, empty)
        try:
            found = find_rows(connection, query)
        except psycopg.errors.QueryCanceled as error:
            fact = (
                f"{place.table}: could not verify that every row has a {params.column}: {error_text(error)}"
            )
            remedy = f"before the run, look for rows without {params.column}"
            yield Finding(severity=Severity.WARN, code="nulls_unknown", fact=fact, remedy=remedy)
            return
        if found:
            rows = "in its partitions" if table.kind == "p" else describe_rows(connection, table, found)
            yield Finding(
                severity=Severity.WARN if place.is_behind_a_gate else Severity.STOP,
                code="nulls",
                fact=f"{place.table} has rows without {params.column}, and no step above gives them one:"
                f" {rows}",
                remedy=f"backfill {params.column} in a step above this one",
            )

    def state(self, place: Place, params: SetNotNullParams) -> State:
        table = place.known.table(place.table)
        column = None if table is None else table.columns.get(params.column)
        if column is None:
            return State.ABSENT
        check = self._check(place.known, place, params)
        if check is not None:
            return State.PARTIAL if _is_ours(check, params) else State.CONFLICT
        return State.DONE if column.is_not_null else State.ABSENT

    def _check(self, catalog: Catalog, place: Place, params: SetNotNullParams) -> ConstraintInfo | None:
        """The helper check, by definition, whatever an earlier version called it; else what has its name."""
        table = catalog.table(place.table)
        found = [c for c in (() if table is None else table.constraints) if c.kind == "c"]
        ours = [c for c in found if c.name.startswith(PREFIX) and _is_ours(c, params)]
        named = [c for c in found if c.name == check_name(params.column)]
        return next(iter(ours + named), None)

    def _helper(self, place: Place, params: SetNotNullParams) -> str:
        there = None if place.catalog is None else self._check(place.known, place, params)
        return check_name(params.column) if there is None else there.name

    def execute(self, context: Context, params: SetNotNullParams) -> int:
        if self.state(context.place, params) is State.DONE:
            return 0
        _, add, validate, set_, drop = self.statements(context.place, params)
        owed = OwedCheck(
            table=context.place.table,
            name=self._helper(context.place, params),
            rows=f"whose {params.column} is NULL",
            drop=drop,
        )
        for _ in range(ROUNDS):
            with owed.dropped_on_failure(context):
                if owed.is_owed(context) and self._nulls(context, params):
                    self._keep_seen(context, params)
                    owed.drop_now(context)
                if self._check(context.fresh_catalog(), context.place, params) is None:
                    self._prove(context, params)
                    run_window(context, [add])
                try:
                    run_long(context, validate)
                except psycopg.errors.CheckViolation:
                    self._keep_seen(context, params)
                    owed.drop_now(context)
                    continue
            run_window(context, [set_, drop])
            return 0
        raise VerificationFailed(
            f"{context.place.table}: NULLs keep being written into {params.column}",
            remedy="find the statement that writes NULL explicitly, then run the same command again (the"
            " helper check was dropped, so it blocks no INSERT)",
        )

    def _prove(self, context: Context, params: SetNotNullParams) -> None:
        """No row without a value, and none seen for as long as the backfill's `quiet` says; else reported and
        fixed by its own sweep.

        A proof that finds none speaks for one moment, and the check would fail those who still write NULL now
        and then.
        """
        fill, quiet_s = self._fill_before(context.place, params), self._quiet_s(context.place, params)
        found = [] if quiet_s else self._nulls(context, params)
        if not (found or quiet_s):
            return
        if fill is None:
            raise VerificationFailed(
                f"{context.place.table} has rows without {params.column}, e.g. at ctid {found[0][0]}, and"
                " the plan backfills them nowhere",
                remedy="give these rows a value, then run the same command again",
            )
        place, (step, filled) = context.place, fill
        value = value_of(
            filled.value, schema=place.schema, constant=place.constant, equals_in=place.equals_in
        )
        for each in replace(place, step=step).steps_of_line:
            if each.table == step.table:
                rows = replace(place, step=each).of_rows
                TableBackfill(
                    backfill_context(context, each),
                    table=rows.table,
                    schema=rows.schema,
                    column=params.column,
                    value=value,
                    skip_triggers=filled.skip_triggers,
                    quiet_s=quiet_s,
                ).run()

    def _quiet_s(self, place: Place, params: SetNotNullParams) -> float:
        """How long no row without a value may have been seen, as the backfill above says."""
        fill = self._fill_before(place, params)
        return 0.0 if fill is None else fill[1].soak_s

    def _keep_seen(self, context: Context, params: SetNotNullParams) -> None:
        """A row without a value was seen: `quiet` counts from now on, also if another session gives it one
        before the next proof.
        """
        fill = self._fill_before(context.place, params)
        if fill is None:
            return
        for step in replace(context.place, step=fill[0]).steps_of_line:
            cursor = context.journal.read_cursor(context.run_id, step.key)
            if cursor is not None and step.table == fill[0].table:
                context.journal.write_cursor(context.run_id, cursor)

    def _nulls(self, context: Context, params: SetNotNullParams) -> list[tuple[str]]:
        promise = f"no row of {context.place.table} without {params.column}"
        with report_meanwhile(promise, clock=context.clock, emit=context.emit):
            return context.work.execute(self._proof(context.place, params)).fetchall()

    def _fill_before(self, place: Place, params: SetNotNullParams) -> tuple[Step, FillsColumn] | None:
        """The last backfill of the column before this step: its value, its triggers, its stage's pace."""
        return place.effects.fill_before(place.step, place.table, params.column)

    def verify(self, place: Place, params: SetNotNullParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = f"{place.table}.{params.column} is not NOT NULL, or its helper check is left"
        return [
            Finding(
                severity=Severity.STOP,
                code="nullable",
                fact=fact,
                remedy="find out who changed it",
                manual=MANUAL,
            )
        ]

    def _proof(self, place: Place, params: SetNotNullParams) -> sql.Composed:
        return sql.SQL("SELECT ctid::text FROM {} WHERE {} IS NULL LIMIT 1").format(
            place.sql_table, sql.Identifier(params.column)
        )

    def _drop(self, place: Place, params: SetNotNullParams) -> sql.Composed:
        return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            place.sql_table, sql.Identifier(self._helper(place, params))
        )


def _has_gate_since(place: Place, column: str) -> bool:
    """This stage, or one since the column was added, waits for an approval."""
    names = [stage.name for stage in place.plan.stages]
    own = names.index(place.step.stage)
    adds = [
        names.index(c.step.stage) + 1
        for c in place.effects.on(place.table)
        if isinstance(c.effect, AddsColumn) and c.effect.column == column
    ]
    stages = place.plan.stages[min(own, *adds) if adds else 0 : own + 1]
    return any(stage.gate for stage in stages)


def _is_ours(check: ConstraintInfo, params: SetNotNullParams) -> bool:
    definition = check.definition.removesuffix(" NOT VALID").replace('"', "")
    return definition == f"CHECK (({params.column} IS NOT NULL))".replace('"', "")


def check_name(column: str) -> str:
    """The helper check's name."""
    return short_name(column, prefix=PREFIX, suffix=SUFFIX)
