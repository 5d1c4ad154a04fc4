"""A unique or primary key constraint: its index is built concurrently, then becomes the constraint.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index: no scan where the columns of a
primary key are NOT NULL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Context, Kind, Place, State, Statement
from online_migrate.operations.contract.effects import CreatesIndex, Effect, MakesKey
from online_migrate.operations.shared.new_index import NewIndex, without_storage
from online_migrate.operations.shared.steps import need, run_window
from online_migrate.postgres.catalog import ConstraintInfo
from online_migrate.postgres.locks import LockMode

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFromIndex:
    """The constraint, and the index of the same name that it is made of."""

    place: Place
    name: str
    columns: tuple[str, ...]
    is_primary: bool = False
    nulls_not_distinct: bool = False
    deferrable: str = ""
    """``DEFERRABLE INITIALLY DEFERRED``, say"""

    @property
    def index(self) -> NewIndex:
        nulls = sql.SQL(" NULLS NOT DISTINCT" if self.nulls_not_distinct else "")
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        return NewIndex(
            place=self.place,
            name=self.name,
            definition=sql.SQL("({}){}").format(names, nulls),
            keys=self.columns,
            is_unique=True,
            is_plain=not self.nulls_not_distinct,
            compares=self.columns,
            nulls_not_distinct=self.nulls_not_distinct,
        )

    @property
    def effects(self) -> tuple[Effect, ...]:
        traits = frozenset(["NULLS NOT DISTINCT"] * self.nulls_not_distinct)
        table, name, columns = self.place.table, self.name, self.columns
        return (
            CreatesIndex(
                table=table,
                name=name,
                columns=columns,
                is_unique=True,
                nulls_not_distinct=self.nulls_not_distinct,
                traits=traits,
            ),
            MakesKey(table=table, name=name, columns=columns, definition=self.definition),
        )

    @property
    def definition(self) -> str:
        """As pg_get_constraintdef has it, without quotes."""
        kind = "PRIMARY KEY" if self.is_primary else "UNIQUE"
        nulls = " NULLS NOT DISTINCT" if self.nulls_not_distinct else ""
        after = f" {self.deferrable}".removesuffix(" INITIALLY IMMEDIATE") if self.deferrable else ""
        return f"{kind}{nulls} ({', '.join(self.columns)}){after}"

    def statements(self) -> tuple[Statement, ...]:
        return (self.index.create(), self._adopt())

    def _adopt(self) -> Statement:
        adopt = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {} USING INDEX {}{}").format(
            self.place.sql_table,
            sql.Identifier(self.name),
            sql.SQL("PRIMARY KEY" if self.is_primary else "UNIQUE"),
            sql.Identifier(self.name),
            sql.SQL(f" {self.deferrable}" if self.deferrable else ""),
        )
        locks = (need(self.place.schema, self.place.table, LockMode.ACCESS_EXCLUSIVE),)
        note = "the index becomes the constraint: no scan"
        return Statement(sql=adopt, kind=Kind.WINDOW, locks=locks, group=1, note=note)

    def preflight(self) -> Iterator[Finding]:
        """What has its name, or its place, and rows that keep it from being built."""
        if self.state() is State.DONE:
            return
        others = self._against()
        if others:
            there = ", ".join(f"{c.name} {c.definition}" for c in others)
            fact = f"where {self.place.table} should have {self.name} {self.definition} it has {there}"
            yield Finding(
                severity=Severity.STOP,
                code="key_conflict",
                fact=fact,
                remedy="drop it, or change the plan",
                manual=MANUAL,
            )
            yield from self.index.duplicates()
        else:
            yield from self.index.findings()

    def state(self) -> State:
        """Done where the table has the same constraint, whatever its name; partial where it has the index."""
        if self._made() is not None:
            return State.DONE
        if self._against():
            return State.CONFLICT
        state = self.index.state()
        return State.PARTIAL if state is State.DONE else state

    def _made(self) -> ConstraintInfo | None:
        return next((c for c in self._constraints() if self._is_planned(c)), None)

    def _is_planned(self, constraint: ConstraintInfo) -> bool:
        is_kind = constraint.kind == ("p" if self.is_primary else "u")
        return is_kind and without_storage(constraint.definition).replace('"', "") == self.definition

    def _against(self) -> list[ConstraintInfo]:
        """What has its name, or is the primary key already."""
        return [c for c in self._constraints() if c.name == self.name or (self.is_primary and c.kind == "p")]

    def _constraints(self) -> tuple[ConstraintInfo, ...]:
        table = self.place.known.table(self.place.table)
        return () if table is None else table.constraints

    def build(self, context: Context) -> None:
        """The index."""
        self.index.build(context)

    def adopt(self, context: Context) -> None:
        """The index becomes the constraint."""
        run_window(context, [self._adopt()])

    def verify(self) -> list[Finding]:
        """Whether the table has the constraint."""
        if self.state() is State.DONE:
            return []
        fact = f"{self.place.table} has no {self.definition} any more"
        return [
            Finding(
                severity=Severity.STOP,
                code="key_gone",
                fact=fact,
                remedy="find out who changed it",
                manual=MANUAL,
            )
        ]
