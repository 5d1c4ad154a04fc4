"""The dress rehearsal: every statement of every open step, in the plan's order, on copies of its tables.

Tables are taken in groups, each in a short transaction that is rolled back: a table, what its steps read and
reference, and the tables above and below it.  What the server refuses there is a finding; so is what could
not be rehearsed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg import sql

from online_migrate.backfill.value_params import ExpressionParams
from online_migrate.engine.check.refusals import describe_refusal, is_consequence, not_rehearsed, rows_left
from online_migrate.engine.check.rehearsal_keys import has_orphans, key_of, names_the_table
from online_migrate.engine.check.rehearsal_rows import Rows
from online_migrate.engine.check.rehearsal_scope import Scope
from online_migrate.engine.survey import Survey
from online_migrate.findings import Finding
from online_migrate.operations.contract.base import Operation, Place, State, Statement
from online_migrate.operations.contract.effects import (
    AddsColumn,
    AddsForeignKey,
    CreatesTable,
    FillsColumn,
    MakesNotNull,
    MakesRow,
    Source,
)
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Step
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.sqlstate import ErrorClass, error_class, is_connection_lost
from online_migrate.postgres.stand_ins import StandIns

GROUP: Final = 8
"""tables that are rehearsed in one transaction, beside those that their steps read"""
GROUP_LIMIT_S: Final = 1.5
"""a transaction is given up after this: while it is open, no vacuum removes rows that died since it began"""


class _TooLong(Exception):
    """The transaction has been open for long enough."""


def rehearse(seen: Survey, stopped: Collection[tuple[str, str, str]]) -> list[Finding]:
    """What the server refuses of the open steps; those in ``stopped`` have findings already."""
    steps = [s for s in seen.steps if s.table is not None and s.key not in seen.done]
    steps = [s for s in steps if not OPERATIONS[s.spec.operation].only_verifies]
    tables = list(dict.fromkeys(str(s.table) for s in steps))
    known = Scope(seen=seen, steps=tuple(steps), stopped=frozenset(stopped))
    found: list[Finding] = []
    size = 2
    while tables:
        group = tables[:size]
        began = time.monotonic()
        try:
            found += _Group(known, group).run()
            tables = tables[len(group) :]
            size = min(2 * size, GROUP) if time.monotonic() - began < GROUP_LIMIT_S / 3 else size
        except _TooLong:
            if size == 1:
                found.append(not_rehearsed(group[0], f"it takes longer than {GROUP_LIMIT_S:g} s"))
                tables = tables[1:]
            size = max(len(group) // 2, 1)
        except psycopg.Error as error:
            if is_connection_lost(error) or seen.catalog.connection.closed:
                raise
            found.append(describe_refusal(error, place=None, statement="", is_certain=seen.journal is None))
            break
    return found


class _Group:
    """One transaction."""

    def __init__(self, known: Scope, tables: list[str]) -> None:
        self._known = known
        self._seen = known.seen
        self._tables = tables
        self._closure = known.closure(tables)
        self._copies = StandIns(
            known.seen.catalog.connection, schema=known.seen.plan.schema, ensure_time=self._ensure_time
        )
        self._catalog = Catalog(known.seen.catalog.connection, self._copies.copies)
        self._references: dict[str, str] = dict(known.seen.references)
        self._ends_at = time.monotonic() + GROUP_LIMIT_S
        self._tainted: set[str] = set()
        """tables with a step that was refused or not rehearsed: a later refusal may follow from it"""
        self._changed: set[str] = set(self._closure)
        """tables whose catalog is to be read again"""
        self._statement = ""
        """that is being executed"""
        self._without_sequences: set[str] = set()
        self.found: list[Finding] = []

    def run(self) -> list[Finding]:
        """All findings; raises :class:`_TooLong`."""
        rows = Rows(
            scope=self._known, copies=self._copies, closure=self._closure, ensure_time=self._ensure_time
        )
        with self._copies.opened():
            self._without_sequences = rows.build()
            for step in self._known.steps:
                if step.table in self._closure:
                    self._rehearse_step(step)
        self._report_missing()
        return self.found

    # steps

    def _place(self, step: Step) -> Place:
        plan = replace(self._seen.plan, schema=self._copies.copies)
        if step.partition not in self._copies.shapes:
            step = replace(step, partition=None)
        return replace(
            self._seen.place(step),
            plan=plan,
            catalog=self._catalog,
            references=self._references,
            journal=None,
            run_id=None,
        )

    def _rehearse_step(self, step: Step) -> None:
        """Execute the step on the copy, unless it is known to be refused, or its table has no copy."""
        if step.partition is not None and step.partition not in self._copies.shapes:
            return  # some partitions are copied, and stand for the others
        self._ensure_time()
        table, place = str(step.table), self._place(step)
        if table in self._changed:
            self._catalog.prefetch(self._changed)
            self._changed.clear()
        creates = place.creates_table
        if step.key in self._known.stopped or (creates and self._known.live(table) is not None):
            self._tainted.update({table} if step.key in self._known.stopped else ())
            return
        is_row = any(isinstance(e, MakesRow) for e in place.effects.of(step))
        if (not creates and self._catalog.table(table) is None) or (
            is_row and table in self._without_sequences
        ):
            self._tainted.add(table)
            return
        if reason := self._why_not(place):
            self._tainted.add(table)
            self.found.append(not_rehearsed(table, reason, step))
            return
        try:
            try:
                self._run(place, is_careful=False)
            except (
                psycopg.errors.DuplicateObject,
                psycopg.errors.DuplicateTable,
                psycopg.errors.ForeignKeyViolation,
            ):
                self._forget(table)
                self._run(place, is_careful=True)
        except psycopg.Error as error:
            self._forget(table)
            self._refused(error, place, self._statement)

    def _run(self, place: Place, *, is_careful: bool) -> None:
        """Under one savepoint; ``is_careful``: each statement has one of its own, so that what the copy alone
        refuses of it can be left out.
        """
        operation, params = OPERATIONS[place.step.spec.operation], place.step.spec.params
        self._statement = ""
        with self._copies.connection.transaction():
            state = State.ABSENT if place.creates_table else operation.state(place, params)
            if state in (State.ABSENT, State.PARTIAL):
                for each in self._statements(operation, place):
                    self._statement = each.text
                    if is_careful:
                        self._execute(each, place, is_resumed=state is State.PARTIAL)
                    else:
                        self._copies.execute(each.sql, each.path)
                self._after(place)
                self._forget(place.table)
            if any(isinstance(e, MakesRow) for e in place.effects.of(place.step)):
                self._keep_row(operation, place)

    def _forget(self, table: str) -> None:
        """The table and those below it have changed; they are read again together, when a step is about
        one of them.
        """
        info = self._known.live(table)
        below = () if info is None else (n for schema, n in info.descendants if schema == info.schema)
        names = {table, *below}
        self._catalog.forget(*names)
        self._changed |= names

    def _why_not(self, place: Place) -> str:
        """Why the step must not be executed: it would lock, or write, what is live; empty where it may."""
        if without := self._without_copy(place):
            return f"{', '.join(without)} has no copy"
        effects = list(place.effects.of(place.step))
        for effect in tuple(effects):
            if isinstance(effect, MakesNotNull):
                before = place.effects.fill_before(place.step, place.table, effect.column)
                effects += [] if before is None else place.effects.of(before[0])
        values = [e.value for e in effects if isinstance(e, FillsColumn)]
        if any(isinstance(v, ExpressionParams) and self._copies.may_write(v.sql) for v in values):
            return "the expression calls a function that may write"
        return ""

    def _without_copy(self, place: Place) -> list[str]:
        """Tables that the step's DDL names, and that have no copy.

        For a new table the server would find the name further on the path, and lock the live table until we
        roll back; a foreign key would be refused, although its parent exists.
        """
        named: dict[str, None] = {}
        for effect in place.effects.of(place.step):
            if isinstance(effect, CreatesTable):
                named |= dict.fromkeys((*effect.references, *effect.made_from))
            elif isinstance(effect, AddsForeignKey) and self._known.live(effect.ref_table) is not None:
                named[effect.ref_table] = None
        return [n for n in named if n != place.table and self._catalog.table(n) is None]

    def _statements(self, operation: Operation[Any], place: Place) -> Iterator[Statement]:
        """The step's statements; before SET NOT NULL, the batch that its own sweep would run."""
        fill = next((e for e in place.effects.of(place.step) if isinstance(e, MakesNotNull)), None)
        before = None if fill is None else place.effects.fill_before(place.step, place.table, fill.column)
        if before is not None:
            filling = OPERATIONS[before[0].spec.operation]
            yield from filling.rehearsed(self._place(before[0]), before[0].spec.params)
        yield from operation.rehearsed(place, place.step.spec.params)

    def _keep_row(self, operation: Operation[Any], place: Place) -> None:
        """Later steps name the row that this one made, or adopted."""
        table = self._catalog.table(place.table)
        primary = None if table is None else next((c for c in table.constraints if c.kind == "p"), None)
        found = (
            None if primary is None else operation.find_row(place, place.step.spec.params, primary.columns)
        )
        if found is None or primary is None:
            return
        row = self._copies.connection.execute(found[1]).fetchone()
        for column, value in zip(primary.columns, row or (), strict=False):
            self._references.setdefault(f"{found[0]}.{column}", sql.Literal(value).as_string(None))

    def _execute(self, statement: Statement, place: Place, *, is_resumed: bool) -> None:
        """Rows that a foreign key would miss only because the copy has few rows are no reason to refuse."""
        try:
            with self._copies.connection.transaction():
                self._copies.execute(statement.sql, statement.path)
        except (psycopg.errors.DuplicateObject, psycopg.errors.DuplicateTable):
            if not is_resumed:  # the first half is done already
                raise
        except psycopg.errors.ForeignKeyViolation as error:
            self._catalog.forget()
            key = key_of(self._catalog, place, error.diag.constraint_name)
            if key is None:
                raise
            self._copies.attempt(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    place.sql_table, sql.Identifier(str(error.diag.constraint_name))
                )
            )
            if "VALIDATE" not in statement.text:
                self._copies.execute(statement.sql, statement.path)
            if has_orphans(self._copies, self._known, key, place):
                raise

    def _after(self, place: Place) -> None:
        """What no statement of the step asks: the width of rows with one column more.  The catalog's reading
        is still the one from before the step.
        """
        for effect in place.effects.of(place.step):
            if isinstance(effect, AddsColumn):
                self._probe_width(place, effect)
            elif isinstance(effect, FillsColumn) and effect.source is Source.CONSTANT:
                self._probe_rows_left(place, effect)

    def _probe_rows_left(self, place: Place, effect: FillsColumn) -> None:
        """A constant fills every row, unless a trigger undoes it: the backfill would never end."""
        query = sql.SQL("SELECT pg_catalog.count(*) FROM ONLY {} WHERE {} IS NULL")
        rows = place.of_rows
        row = self._copies.connection.execute(query.format(rows.sql_table, sql.Identifier(effect.column)))
        left = (row.fetchone() or (0,))[0]
        if left:
            self.found.append(rows_left(rows, effect.column, left))

    def _probe_width(self, place: Place, effect: AddsColumn) -> None:
        """The application writes rows as wide as the widest, with the new column's default in them."""
        table = self._catalog.table(place.table)
        if table is None or table.kind != "r" or len(table.columns) < 200:
            return
        column = sql.Identifier(effect.column)
        try:
            with self._copies.connection.transaction(force_rollback=True):
                self._copies.execute(
                    sql.SQL("UPDATE ONLY {} SET {} = DEFAULT").format(place.sql_table, column)
                )
        except psycopg.errors.ProgramLimitExceeded as error:
            self._refused(error, place, f"INSERT INTO {place.table}, with {effect.column} in it")

    def _refused(self, error: psycopg.Error, place: Place, statement: str) -> None:
        if self._copies.connection.closed or is_connection_lost(error):
            raise error
        is_tainted = bool(self._tainted.intersection(self._closure))
        self._tainted.add(place.table)
        if error_class(error) is ErrorClass.LOCK or names_the_table(error, place):
            self.found.append(not_rehearsed(place.table, str(error.diag.message_primary), place.step))
        elif not (is_tainted and is_consequence(error)):
            self.found.append(
                describe_refusal(
                    error, place=replace(place, plan=self._seen.plan), statement=statement, is_certain=True
                )
            )

    def _ensure_time(self) -> None:
        if time.monotonic() > self._ends_at:
            raise _TooLong

    def _report_missing(self) -> None:
        """What the copies of this group's own tables lack, a finding a table."""
        reasons: Mapping[str, dict[str, None]] = {}
        for lack in self._copies.missing:
            reasons = {**reasons, lack.table: {**reasons.get(lack.table, {}), lack.text: None}}
        for table, texts in reasons.items():
            if table in self._tables:
                self.found.append(not_rehearsed(table, "; ".join(texts)))
