"""add_check: prove, add NOT VALID in a short lock window, then VALIDATE beside the application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import psycopg
from psycopg import sql
from pydantic import AfterValidator

from online_migrate.backfill.hazards.filled_column import planned_columns
from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.backfill.hazards.row_reads import error_kind, limit_reads
from online_migrate.backfill.rows import describe_rows
from online_migrate.errors import VerificationFailed
from online_migrate.findings import Finding, Severity
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
from online_migrate.operations.contract.effects import AddsCheck, Effect
from online_migrate.operations.schema_before import plan_context
from online_migrate.operations.shared.check_text import check_on_copy, columns_of, ensure_check
from online_migrate.operations.shared.owed_check import OwedCheck
from online_migrate.operations.shared.steps import need, run_long, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import ConstraintInfo, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.long_statement import report_meanwhile
from online_migrate.postgres.rehearsal import TrialFailed
from online_migrate.postgres.search_path import SearchPath, local_path
from online_migrate.postgres.sqlstate import ErrorClass, error_class

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES"
NAME_BYTES = 63
EXAMPLES = 3


class AddCheckParams(TableParams):
    """A check constraint."""

    name: str
    """name of the constraint; <table> stands for the name of the table"""
    check: Annotated[str, AfterValidator(ensure_check)]
    """condition that no row may break, over columns of the table: ``amount > 0``; NULL breaks none"""


class AddCheck(Operation[AddCheckParams]):
    """Add a check constraint without a scan under a strong lock.

    What it does: proves by one statement that no row breaks the check, adds it NOT VALID, from when on
    PostgreSQL checks every row that is written, and validates it, which reads the table once more. `check`
    lists rows that break it, by key. Where one is written between proof and check, the check is dropped
    again, because every UPDATE of such a row would fail; the error names the row. A valid check with the same
    definition is adopted, whatever its name.

    Locks: ACCESS EXCLUSIVE on the table in one lock window; then SHARE UPDATE EXCLUSIVE for one scan, which
    blocks no reads or writes. Both on its partitions and inheriting tables as well.

    On a crash: the check may remain NOT VALID. While it is, an UPDATE of a row that breaks it fails (23514).
    The next run validates it.

    How to undo: drop_constraint, or ALTER TABLE … DROP CONSTRAINT.
    """

    name = "add_check"
    phase = Phase.CONTRACT
    summary = "add a check constraint NOT VALID, then validate it"
    descendants = Descendants.ALONG
    Params: ClassVar[type[AddCheckParams]] = AddCheckParams

    def title(self, params: AddCheckParams) -> str:
        return f"add_check {params.name}"

    def effects(self, place: Place, params: AddCheckParams) -> tuple[Effect, ...]:
        return (
            AddsCheck(
                table=place.table,
                name=place.fill(params.name),
                expression=params.check,
                columns=columns_of(params.check, place.table),
            ),
        )

    def statements(self, place: Place, params: AddCheckParams) -> tuple[Statement, ...]:
        there = None if place.catalog is None else self._planned(place, params)
        name = sql.Identifier(place.fill(params.name) if there is None else there.name)
        add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
            place.sql_table, name, sql.SQL(params.check)
        )
        validate = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(place.sql_table, name)
        strong = tuple(need(*names, LockMode.ACCESS_EXCLUSIVE) for names in place.family)
        scan = tuple(need(*names, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True) for names in place.family)
        return (
            Statement(
                sql=_proof(place, params),
                kind=Kind.READ,
                path=SearchPath.PLAN,
                note="the proof: one statement, one snapshot, no row",
            ),
            Statement(sql=add, kind=Kind.WINDOW, path=SearchPath.PLAN, locks=strong, group=1),
            Statement(sql=validate, kind=Kind.LONG, locks=scan, group=2),
        )

    def preflight(self, place: Place, params: AddCheckParams) -> list[Finding]:
        table, name = place.known.table(place.table), place.fill(params.name)
        if table is None:
            return []
        if len(name.encode()) > NAME_BYTES:
            fact = f"{name!r} is longer than {NAME_BYTES} bytes"
            return [_finding(Severity.STOP, "name_too_long", fact, "give a shorter `name`")]
        return list(self._findings(place, params, table))

    def _findings(self, place: Place, params: AddCheckParams, table: TableInfo) -> Iterator[Finding]:
        try:
            wanted = self._wanted(place, params, table)
        except TrialFailed as error:
            fact = f"the server refuses the check ({params.check}) of {place.table}: {error}"
            yield _finding(Severity.STOP, "check_refused", fact, "correct `check`")
            return
        state = self.state(place, params)
        if state is State.CONFLICT:
            for other in self._against(place, params):
                fact = (
                    f"{other.table} should have the check {place.fill(params.name)} {wanted}, and has"
                    f" {other.name} {other.definition}"
                )
                yield _finding(
                    Severity.STOP, "check_conflict", fact, "give another `name`, or drop or rename it"
                )
        elif state is not State.DONE and not self._is_added_later(place, params, table):
            yield from self._broken(place, params, table)

    def _is_added_later(self, place: Place, params: AddCheckParams, table: TableInfo) -> bool:
        """An earlier step adds one of its columns: rows have nothing in it yet."""
        return any(c not in table.columns for c in columns_of(params.check, place.table))

    def _broken(self, place: Place, params: AddCheckParams, table: TableInfo) -> Iterator[Finding]:
        """Rows that break it; a step above, or the application behind a gate, may still correct them."""
        connection = place.known.connection
        if read_right_hazards(connection, table, ("SELECT",)):
            return  # the missing right is a finding of its own
        try:
            with connection.transaction():
                limit_reads(connection)
                found = _read_broken(connection, place, params)
        except psycopg.Error as error:
            if error_class(error) not in (ErrorClass.PROGRAM, ErrorClass.LOCK):
                raise
            fact = f"{place.table}: could not verify that no row breaks ({params.check}): {error_kind(error)}"
            remedy = "before the run, look for rows that break it; the run proves it before it adds the check"
            yield _finding(Severity.WARN, "check_unknown", fact, remedy)
            return
        if found:
            filled = plan_context(place).filled_before
            may_change = place.is_behind_a_gate or any(
                (place.table, c) in filled for c in columns_of(params.check, place.table)
            )
            fact = (
                f"{place.table} has rows that break ({params.check}): {_describe(connection, place, found)}"
            )
            severity = Severity.WARN if may_change else Severity.STOP
            yield _finding(severity, "check_broken", fact, "correct or delete these rows")

    def state(self, place: Place, params: AddCheckParams) -> State:
        planned = self._planned(place, params)
        if planned is not None:
            return State.DONE if planned.is_valid else State.PARTIAL
        return State.CONFLICT if self._against(place, params) else State.ABSENT

    def _planned(self, place: Place, params: AddCheckParams) -> ConstraintInfo | None:
        """The check as planned, whatever its name; a valid one first, then one of its name."""
        table = place.known.table(place.table)
        checks = [c for c in (() if table is None else table.constraints) if c.kind == "c"]
        if table is None or not checks:
            return None
        try:
            wanted = self._wanted(place, params, table)
        except TrialFailed:  # preflight reports it
            return None
        same = [c for c in checks if c.definition.removesuffix(" NOT VALID") == wanted]
        name = place.fill(params.name)
        return max(same, key=lambda c: (c.is_valid, c.name == name), default=None)

    def _against(self, place: Place, params: AddCheckParams) -> list[ConstraintInfo]:
        """What has its name and another definition, on the table or below it."""
        name, table = place.fill(params.name), place.known.table(place.table)
        infos = [place.known.in_schema(schema).table(below) for schema, below in place.family]
        named = [c for info in infos if info is not None for c in info.constraints if c.name == name]
        if not named or table is None:
            return []
        try:
            wanted = self._wanted(place, params, table)
        except TrialFailed:
            return named
        return [c for c in named if c.definition.removesuffix(" NOT VALID") != wanted]

    def _wanted(self, place: Place, params: AddCheckParams, table: TableInfo) -> str:
        """As the server spells it; raises :class:`TrialFailed`."""
        added = planned_columns(table, plan_context(place))
        return check_on_copy(place.known.connection, table, added, params.check)

    def execute(self, context: Context, params: AddCheckParams) -> int:
        place, state = context.place, self.state(context.place, params)
        if state is State.DONE:
            return 0
        _, add, validate = self.statements(place, params)
        if state is State.PARTIAL:
            try:
                run_long(context, validate)
            except psycopg.errors.CheckViolation as error:
                drop = self._drop(place, params).text
                end = f"the check stays NOT VALID, and an UPDATE of such a row fails (23514), until {drop}"
                raise self._failed(context, params, end) from error
            return 0
        self._prove(context, params)
        owed = OwedCheck(
            table=place.table,
            name=place.fill(params.name),
            rows="that breaks it",
            drop=self._drop(place, params),
        )
        try:
            with owed.dropped_on_failure(context):
                run_window(context, [add])
                run_long(context, validate)
        except psycopg.errors.CheckViolation as error:
            raise self._failed(context, params, "the check was dropped again") from error
        return 0

    def _prove(self, context: Context, params: AddCheckParams) -> None:
        """While the check is not valid, every UPDATE of a row that breaks it fails: so none may exist."""
        place = context.place
        promise = f"no row of {place.table} breaks ({params.check})"
        with report_meanwhile(promise, clock=context.clock, emit=context.emit), context.work.transaction():
            found = _read_broken(context.work, place, params)
        if found:
            raise _broken_error(place, params, _describe(context.work, place, found), "nothing was changed")

    def _failed(self, context: Context, params: AddCheckParams, end: str) -> VerificationFailed:
        """VALIDATE has found a row that breaks it."""
        with context.work.transaction():
            found = _read_broken(context.work, context.place, params)
        rows = _describe(context.work, context.place, found) if found else "none any more"
        return _broken_error(context.place, params, rows, end)

    def _drop(self, place: Place, params: AddCheckParams) -> Statement:
        there = self._planned(place, params)
        drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            place.sql_table, sql.Identifier(place.fill(params.name) if there is None else there.name)
        )
        locks = tuple(need(*names, LockMode.ACCESS_EXCLUSIVE) for names in place.family)
        return Statement(sql=drop, kind=Kind.WINDOW, locks=locks)

    def verify(self, place: Place, params: AddCheckParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = f"the check {place.fill(params.name)} of {place.table} was dropped, or is not valid"
        return [_finding(Severity.STOP, "check_gone", fact, "find out who changed it")]


def _proof(place: Place, params: AddCheckParams) -> sql.Composed:
    """The table and the place of rows that break the check; NULL does not."""
    return sql.SQL(
        "SELECT tableoid::pg_catalog.int8, ctid::pg_catalog.text FROM {} WHERE ({}) IS FALSE LIMIT {}"
    ).format(place.sql_table, sql.SQL(params.check), sql.Literal(EXAMPLES))


def _read_broken(connection: Connection, place: Place, params: AddCheckParams) -> list[tuple[int, str]]:
    """In a transaction.  Binary: the extended protocol, which takes one statement."""
    with local_path(connection, SearchPath.PLAN):
        return connection.execute(_proof(place, params), binary=True).fetchall()


def _describe(connection: Connection, place: Place, found: list[tuple[int, str]]) -> str:
    """By key, and by table where they are in one below."""
    texts = []
    for names in place.family:
        info = place.known.in_schema(names[0]).table(names[1])
        ctids = [ctid for oid, ctid in found if info is not None and oid == info.oid]
        if info is not None and ctids:
            where = "" if names == (place.schema, place.table) else f" (in {'.'.join(names)})"
            texts.append(describe_rows(connection, info, ctids) + where)
    return "; ".join(texts)


def _broken_error(place: Place, params: AddCheckParams, rows: str, end: str) -> VerificationFailed:
    return VerificationFailed(
        f"{place.table} has rows that break ({params.check}): {rows}; {end}",
        remedy="correct or delete these rows, then run the same command again",
    )


def _finding(severity: Severity, code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=severity, code=code, fact=fact, remedy=remedy, manual=MANUAL)
