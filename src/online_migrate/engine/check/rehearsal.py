"""The dress rehearsal: every statement of every open step, in the plan's order, on copies of its tables.

Tables are taken in groups, each in a short transaction that is rolled back: a table, what its steps read and
reference, and the tables above and below it.  What the server refuses there is a finding; so is what could
not be rehearsed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final

import psycopg
from psycopg import sql

from online_migrate.backfill.value_params import ExpressionParams, FromParentParams
from online_migrate.engine.check.refusals import describe_refusal, is_consequence, not_rehearsed, rows_left
from online_migrate.engine.survey import Survey
from online_migrate.findings import Finding
from online_migrate.operations.contract.base import Operation, Place, State, Statement
from online_migrate.operations.contract.effects import (
    AddsColumn,
    AddsForeignKey,
    CreatesIndex,
    CreatesTable,
    Effect,
    FillsColumn,
    MakesNotNull,
    MakesRow,
    ReadsColumns,
    Source,
)
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Step
from online_migrate.postgres.catalog import Catalog, ConstraintInfo, TableInfo
from online_migrate.postgres.sample_rows import copy_rows, insert_rows, read_places, referenced_places
from online_migrate.postgres.sqlstate import ErrorClass, error_class, is_connection_lost
from online_migrate.postgres.stand_ins import StandIns

GROUP: Final = 8
"""tables that are rehearsed in one transaction, beside those that their steps read"""
GROUP_LIMIT_S: Final = 1.5
"""a transaction is given up after this: while it is open, no vacuum removes rows that died since it began"""
DESCENDANTS: Final = 4
"""partitions and inheriting tables that are copied with a table"""


class _TooLong(Exception):
    """The transaction has been open for long enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """A column whose values are keys of another table."""

    child: str
    column: str
    parent: str
    key: str


def rehearse(seen: Survey, stopped: Collection[tuple[str, str, str]]) -> list[Finding]:
    """What the server refuses of the open steps; those in ``stopped`` have findings already."""
    steps = [s for s in seen.steps if s.table is not None and s.key not in seen.done]
    steps = [s for s in steps if not OPERATIONS[s.spec.operation].only_verifies]
    tables = list(dict.fromkeys(str(s.table) for s in steps))
    known = _Known(seen=seen, steps=tuple(steps), stopped=frozenset(stopped))
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


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the groups share."""

    seen: Survey
    steps: tuple[Step, ...]
    stopped: frozenset[tuple[str, str, str]]
    _of: dict[str, list[Step]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for step in self.steps:
            self._of.setdefault(str(step.table), []).append(step)

    def effects_on(self, table: str) -> Iterator[Effect]:
        """Of the open steps of the table."""
        return chain.from_iterable(self.seen.effects.of(s) for s in self._of.get(table, ()))

    def live(self, table: str) -> TableInfo | None:
        return self.seen.catalog.table(table)

    def links(self, table: str) -> Iterator[_Link]:
        """Along planned foreign keys, along those of filled columns, and along the joins of a backfill."""
        filled = set()
        for effect in self.effects_on(table):
            if isinstance(effect, AddsForeignKey):
                yield _Link(child=table, column=effect.column, parent=effect.ref_table, key=effect.ref_column)
            elif isinstance(effect, FillsColumn):
                filled.add(effect.column)
                before = table
                for join in effect.value.joins if isinstance(effect.value, FromParentParams) else ():
                    yield _Link(child=before, column=join.on, parent=join.table, key=join.key)
                    before = join.table
        for key in self.keys_of(table, filled):
            yield _Link(child=table, column=key.columns[0], parent=str(key.ref_table), key=key.ref_columns[0])

    def keys_of(self, table: str, columns: Collection[str]) -> list[ConstraintInfo]:
        """Existing foreign keys of one of these columns, within the plan's schema."""
        info = self.live(table)
        keys = () if info is None else info.foreign_keys
        return [
            k
            for k in keys
            if len(k.columns) == 1 and k.columns[0] in columns and k.ref_schema == self.seen.plan.schema
        ]

    def reads(self, table: str) -> Iterator[str]:
        """The tables that the steps of a table read or reference, and its kin."""
        for effect in self.effects_on(table):
            if isinstance(effect, CreatesTable):
                yield from (*effect.references, *effect.made_from)
            elif isinstance(effect, ReadsColumns):
                yield effect.table
            elif isinstance(effect, FillsColumn) and isinstance(effect.value, ExpressionParams):
                words = set(re.findall(r"\w+", effect.value.sql))
                yield from (name for name in self._of if name in words)
        yield from (link.parent for link in self.links(table))
        yield from self.kin(table)

    def kin(self, table: str) -> Iterator[str]:
        """Tables above it, and some below it, in the plan's schema."""
        info = self.live(table)
        if info is not None:
            yield from (name for schema, name in info.ancestors if schema == info.schema)
            below = [name for schema, name in info.descendants if schema == info.schema]
            yield from sorted(below, key=lambda name: name not in self._of)[:DESCENDANTS]

    def closure(self, tables: list[str]) -> list[str]:
        """These tables, and all that their steps need, each after those that need it."""
        rows = {c.effect.table for c in self.seen.open_changes if isinstance(c.effect, MakesRow)}
        found = dict.fromkeys([*tables, *sorted(rows)])
        queue = list(found)
        while queue:
            for name in self.reads(queue.pop(0)):
                if name not in found:
                    found[name] = None
                    queue.append(name)
        return list(found)


class _Group:
    """One transaction."""

    def __init__(self, known: _Known, tables: list[str]) -> None:
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
        self._without_sequences: set[str] = set()
        """tables into whose copy no row is inserted: it would take a value of the live sequence"""
        self._changed: set[str] = set(self._closure)
        """tables whose catalog is to be read again"""
        self._statement = ""
        """that is being executed"""
        self.found: list[Finding] = []

    def run(self) -> list[Finding]:
        """All findings; raises :class:`_TooLong`."""
        with self._copies.opened():
            self._build()
            for step in self._known.steps:
                if step.table in self._closure:
                    self._take(step)
        self._say_missing()
        return self.found

    def _build(self) -> None:
        there = [n for n in self._closure if self._known.live(n) is not None]
        self._copies.create(there)
        for name in there:
            self._ensure_time()
            self._fill(name)
        self._bring_own_parents(there)
        self._keys(there)
        self._copies.finish(there)

    def _fill(self, name: str) -> None:
        table = self._known.live(name)
        assert table is not None  # only those that exist are filled
        planned = [
            [c for c in e.columns if c is not None]
            for e in self._known.effects_on(name)
            if isinstance(e, CreatesIndex)
        ]
        existing = [[c for c in i.columns if c is not None] for i in table.indexes]
        wanted = [
            referenced_places(self._copies, child=link.child, column=link.column, parent=table, key=link.key)
            for link in self._links(parent=name)
            if link.child != name
        ]
        copy_rows(self._copies, table, planned + existing, wanted=[*wanted, *self._rows_of_plan(name)])
        if any(
            isinstance(e, MakesRow) for e in self._known.effects_on(name)
        ) and not self._copies.own_sequences(name):
            self._without_sequences.add(name)

    def _rows_of_plan(self, table: str) -> Iterator[sql.Composed]:
        """Rows that a step would adopt."""
        for step in self._known.steps:
            if step.table == table:
                found = OPERATIONS[step.spec.operation].find_row(
                    self._seen.place(step), step.spec.params, ["ctid"]
                )
                if found is not None:
                    yield sql.Composed([found[1]])

    def _links(self, *, parent: str) -> list[_Link]:
        """To the table, along columns that exist, from copies that exist."""
        found = dict.fromkeys(chain.from_iterable(map(self._known.links, self._closure)))
        return [link for link in found if link.parent == parent and self._is_live(link)]

    def _is_live(self, link: _Link) -> bool:
        child, parent = self._known.live(link.child), self._known.live(link.parent)
        return (
            child is not None
            and parent is not None
            and link.column in child.columns
            and link.key in parent.columns
            and link.child in self._copies.shapes
            and link.parent in self._copies.shapes
        )

    def _bring_own_parents(self, there: list[str]) -> None:
        """Rows that later rows of the copies reference: of the table itself, and along a cycle."""
        for name in there:
            table = self._known.live(name)
            assert table is not None
            for link in self._links(parent=name):
                query = referenced_places(
                    self._copies, child=link.child, column=link.column, parent=table, key=link.key
                )
                if table.kind == "r":
                    insert_rows(self._copies, table, read_places(self._copies, table, query))

    def _keys(self, there: list[str]) -> None:
        """Existing foreign keys of columns that the plan fills.

        NOT VALID, because the parents of old rows may not have been copied.
        """
        for name in there:
            filled = {e.column for e in self._known.effects_on(name) if isinstance(e, FillsColumn)}
            for key in self._known.keys_of(name, filled):
                if name in self._copies.shapes and key.ref_table in self._copies.shapes:
                    self._add_key(name, key)

    def _add_key(self, name: str, key: ConstraintInfo) -> None:
        text = "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) NOT VALID"
        add = sql.SQL(text).format(
            self._copies.name(name),
            sql.Identifier(key.name),
            sql.Identifier(key.columns[0]),
            self._copies.name(str(key.ref_table)),
            sql.Identifier(key.ref_columns[0]),
        )
        self._copies.attempt(add)

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

    def _take(self, step: Step) -> None:
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
            key = self._key_of(place, error.diag.constraint_name)
            if key is None:
                raise
            self._copies.attempt(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    place.sql_table, sql.Identifier(str(error.diag.constraint_name))
                )
            )
            if "VALIDATE" not in statement.text:
                self._copies.execute(statement.sql, statement.path)
            if self._orphans(key, place):
                raise

    def _key_of(self, place: Place, name: str | None) -> _Link | None:
        table = self._catalog.table(place.table)
        keys = () if table is None else table.foreign_keys
        key = next((k for k in keys if k.name == name), None)
        if key is None or key.ref_table is None:
            return None
        return _Link(child=place.table, column=key.columns[0], parent=key.ref_table, key=key.ref_columns[0])

    def _orphans(self, link: _Link, place: Place) -> bool:
        """Has a row of the copy a key that neither the parent nor its copy has?"""
        live = self._known.live(link.parent)
        parents = [self._copies.name(link.parent)]
        parents += [] if live is None else [sql.Identifier(live.schema, live.name)]
        absent = sql.SQL(" AND ").join(
            sql.SQL("NOT EXISTS (SELECT FROM {parent} p WHERE p.{key} = c.{column})").format(
                parent=parent, key=sql.Identifier(link.key), column=sql.Identifier(link.column)
            )
            for parent in parents
        )
        query = sql.SQL("SELECT FROM {} c WHERE c.{} IS NOT NULL AND {} LIMIT 1").format(
            place.sql_table, sql.Identifier(link.column), absent
        )
        return self._copies.connection.execute(query).fetchone() is not None

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
        row = self._copies.connection.execute(query.format(place.sql_table, sql.Identifier(effect.column)))
        left = (row.fetchone() or (0,))[0]
        if left:
            self.found.append(rows_left(place, effect.column, left))

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
        if error_class(error) is ErrorClass.LOCK or _names_the_table(error, place):
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

    def _say_missing(self) -> None:
        """What the copies of this group's own tables lack, a finding a table."""
        reasons: Mapping[str, dict[str, None]] = {}
        for lack in self._copies.missing:
            reasons = {**reasons, lack.table: {**reasons.get(lack.table, {}), lack.text: None}}
        for table, texts in reasons.items():
            if table in self._tables:
                self.found.append(not_rehearsed(table, "; ".join(texts)))


def _names_the_table(error: psycopg.Error, place: Place) -> bool:
    """May an expression of the plan name the table's schema or its row type, which are the copy's own here?

    Its text is parsed on the table itself by the checks of the backfill.
    """
    return str(error.sqlstate).startswith("42") and any(
        isinstance(e, FillsColumn) and isinstance(e.value, ExpressionParams)
        for e in place.effects.of(place.step)
    )
