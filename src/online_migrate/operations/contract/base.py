"""The contract of every operation: its parameters, its texts, what it does, and what it promises."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from psycopg import sql
from pydantic import model_validator

from online_migrate.backfill.throttlers import Throttles
from online_migrate.backfill.values import Constant, Reference
from online_migrate.findings import Finding
from online_migrate.journal.store import Journal
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import CreatesTable, Effect, PlanEffects
from online_migrate.operations.contract.state import State
from online_migrate.plan.model import HoldWhen, Pace, Phase, Plan, Step, Strict
from online_migrate.plan.references import reference_in
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.connection import Sql
from online_migrate.postgres.locks import LockNeed, strongest
from online_migrate.postgres.partitions import Partition, partition_names, read_partitions
from online_migrate.postgres.search_path import SearchPath
from online_migrate.run import StepContext


class Kind(Enum):
    """How a statement is run."""

    WINDOW = "window"
    """in a lock window: instant"""
    LONG = "long"
    """alone, watched, for as long as needed; blocks no application statements"""
    BATCH = "batch"
    """over and over, a slice of the table at a time"""
    WRITE = "write"
    """a short transaction"""
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement as it is run and as explain prints it.  ``group`` numbers the windows of a step: one
    transaction each.
    """

    sql: Sql
    kind: Kind
    locks: tuple[LockNeed, ...] = ()
    group: int = 0
    note: str = ""
    path: SearchPath = SearchPath.ROLE
    """the search_path that it runs with"""

    @property
    def text(self) -> str:
        return self.sql.as_string(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a step works: what is known of plan and database when it says its SQL or its state.

    ``catalog`` is None where there is no database; ``references`` are then empty and appear in the SQL by
    their names.
    """

    plan: Plan
    step: Step
    catalog: Catalog | None
    references: Mapping[str, str] = field(default_factory=dict)
    journal: Journal | None = None
    run_id: int | None = None
    within: tuple[str, str] | None = None
    """(schema, name) of the partition that is worked on, where the step's table is one above it"""
    effects: PlanEffects = field(default_factory=PlanEffects)
    """all steps of the plan, and what each changes; see operations/schema_before.py"""

    @property
    def schema(self) -> str:
        return self.plan.schema if self.within is None else self.within[0]

    @property
    def table(self) -> str:
        assert self.step.table is not None  # only operations over tables ask
        return self.step.table if self.within is None else self.within[1]

    @property
    def sql_table(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """(schema, name) of the table and of what the server changes along with it: partitions, inheriting
        tables.
        """
        table = None if self.catalog is None else self.known.table(self.table)
        return ((self.schema, self.table), *(() if table is None else table.descendants))

    def family_of(self, table: str) -> tuple[str, ...]:
        """The table, its partitions, and the tables that inherit from it, by name."""
        info = None if self.catalog is None else self.catalog.table(table)
        return (table, *(() if info is None else (name for _, name in info.descendants)))

    def type_name(self, name: str) -> str:
        """A type that the plan names, as the database spells it with its schema; as it is where there is no
        database, or the database does not know it.
        """
        return name if self.catalog is None else self.catalog.type_name(name)

    @property
    def known(self) -> Catalog:
        """The catalog, for those parts of the contract that have one."""
        assert self.catalog is not None  # the engine always gives one
        return self.catalog.in_schema(self.schema)

    @property
    def is_partitioned(self) -> bool:
        """The database has the table, and it is partitioned: its rows are in its partitions."""
        table = None if self.catalog is None else self.known.table(self.table)
        return table is not None and table.kind == "p"

    def partitions(self) -> tuple[Partition, ...]:
        """What is below the partitioned table, each after its parent."""
        return read_partitions(self.known.connection, self.sql_table.as_string(None))

    def at(self, names: tuple[str, str]) -> Place:
        """The same step at one of its table's partitions."""
        return replace(self, within=names)

    @property
    def of_rows(self) -> Place:
        """Where the rows of the step are: at its partition, if it has one."""
        partition = self.step.partition
        return self if partition is None else self.at(partition_names(self.plan.schema, partition))

    def leaves(self) -> tuple[Place, ...]:
        """A place for each partition that has rows."""
        return tuple(self.at(p.names) for p in self.partitions() if p.kind == "r")

    @property
    def tables_of_step(self) -> tuple[str, ...]:
        """The tables of the same line of the plan, in its order."""
        steps = self.steps_of_line
        return tuple(dict.fromkeys(s.table for s in steps if s.table is not None))

    @property
    def steps_of_line(self) -> tuple[Step, ...]:
        """The steps of the same line of the plan, in its order."""
        return tuple(s for s in self.effects.steps if s.spec is self.step.spec)

    @property
    def creates_table(self) -> bool:
        """The step creates its table."""
        return any(isinstance(e, CreatesTable) for e in self.effects.of(self.step))

    @property
    def is_behind_a_gate(self) -> bool:
        """A person approves this stage, or one before it: what `check` finds now may change until then."""
        names = [stage.name for stage in self.plan.stages]
        return any(stage.gate for stage in self.plan.stages[: names.index(self.step.stage) + 1])

    def fill(self, text: str) -> str:
        """Put the table's name in for ``<table>``."""
        return text.replace("<table>", self.step.table or "")

    def constant(self, value: object) -> Constant | Reference:
        """A plan's value: a literal, what a reference stands for, or the reference while its row does not
        exist.
        """
        name = reference_in(value)
        if name is None:
            return Constant.of(value)
        known = self.references.get(name)
        return Reference(name=name) if known is None else Constant(literal=sql.SQL(known))

    def equals_in(self, table: str, column: str) -> str:
        """The schema of the equality operator for the column's type; pg_catalog where the column is not
        known.
        """
        catalog = None if self.catalog is None else self.known if table == self.table else self.catalog
        info = None if catalog is None else catalog.table(table)
        known = None if info is None else info.columns.get(column)
        return "pg_catalog" if known is None else known.equals_in

    def equals(self, table: str, column: str) -> sql.Composed:
        """``=`` for the column, by its schema, whatever the search_path."""
        return sql.SQL("OPERATOR({}.=)").format(sql.Identifier(self.equals_in(table, column)))

    def value(self, value: object) -> sql.Composable:
        """A plan's value as SQL; a reference that is not known yet is printed as it is."""
        return self.constant(value).as_sql(self.step.table or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(StepContext):
    """What a step works with while it is executed."""

    place: Place
    pace: Pace
    hold_when: HoldWhen
    throttles: Throttles = field(default_factory=Throttles)
    """of the run: what holds its backfills, and what was read of it"""

    @property
    def step(self) -> Step:
        return self.place.step

    def at(self, names: tuple[str, str]) -> Context:
        """The same step at one of its table's partitions."""
        return replace(self, place=self.place.at(names))

    def fresh_catalog(self) -> Catalog:
        """A catalog that has read nothing yet."""
        return Catalog(self.work, self.place.schema)


class TableParams(Strict):
    """Parameters of an operation over one table, or over a set, or over some tables."""

    table: str | None = None
    tables: str | list[str] | None = None

    @model_validator(mode="after")
    def _has_one_target(self) -> TableParams:
        if (self.table is None) == (self.tables is None):
            msg = "give exactly one of table (one table) and tables (a table set, or a list)"
            raise ValueError(msg)
        return self


P = TypeVar("P", bound=Strict)


class Operation(ABC, Generic[P]):
    """A kind of step.  Without state of its own: everything that it needs comes as a :class:`Place` or a
    :class:`Context`.

    ``execute`` may be called again after a crash at any point and converges.
    """

    name: ClassVar[str]
    phase: ClassVar[Phase]
    shorthand: ClassVar[str | None] = None
    summary: ClassVar[str]
    """one line for people"""
    is_verified_at_once: ClassVar[bool] = True
    """verify() after execute(): for all whose verify is a look at the catalog; a scan has just been made by
    those that scan"""

    only_verifies: ClassVar[bool] = False
    """it changes nothing: to execute it is to verify"""
    needs_owner: ClassVar[bool] = True
    """its statements need the rights of the table's owner; else it reads or writes rows"""
    reads_unknown: ClassVar[bool] = False
    """it runs queries of the plan's author: no effect says what they read"""

    takes_partitions: ClassVar[bool] = False
    """of a partitioned table it does all of it, partition by partition"""
    takes_each_partition: ClassVar[bool] = False
    """of a partitioned table there is a step for each partition with rows"""
    descendants: ClassVar[Descendants] = Descendants.ANY
    """what becomes of partitions and inheriting tables"""
    partitions_way: ClassVar[str] = "name its partitions instead"
    """the remedy where a partitioned root is refused"""

    Params: ClassVar[type[Strict]]

    def title(self, params: P) -> str:  # noqa: ARG002  # others name more than the operation
        """Names the step within its stage."""
        return self.name

    def load(self, params: P, folder: Path) -> P:  # noqa: ARG002
        """Read files that the parameters name; raises ValueError."""
        return params

    def why_alone(self, place: Place, params: P, tables: Collection[str]) -> str:  # noqa: ARG002
        """Why the step's tables, of which ``tables`` are all, are taken one after the other; empty where they
        need not be.
        """
        return "only batches run beside each other"

    def waits_at_its_end(self, params: P) -> bool:  # noqa: ARG002
        """Is its end a wait?  Then :meth:`execute_pass` is done for all tables first, so that they wait
        together.
        """
        return False

    def execute_pass(self, context: Context, params: P) -> None:
        """That part of the work which may be done side by side, or before others' end; :meth:`execute` then
        does the rest.

        Most operations have none.
        """

    def targets(self, params: P) -> tuple[str | None, ...] | str:
        """The tables of the step, or the name of the table set that it is over; (None,) for a step over no
        table.
        """
        if not isinstance(params, TableParams):
            return (None,)
        if params.table is not None:
            return (params.table,)
        assert params.tables is not None  # its validator has seen to it
        return params.tables if isinstance(params.tables, str) else tuple(params.tables)

    def takes_owner_of(self, params: P) -> str | None:  # noqa: ARG002
        """The existing table whose owner and grants the step's new tables get."""
        return None

    def effects(self, place: Place, params: P) -> tuple[Effect, ...]:  # noqa: ARG002
        """What the step changes in the schema, by plan and parameters alone:
        ``place`` has no catalog here.
        """
        return ()

    @abstractmethod
    def statements(self, place: Place, params: P) -> tuple[Statement, ...]:
        """The exact SQL, in order, with its locks: explain prints what run executes."""

    def locks(self, place: Place, params: P) -> tuple[LockNeed, ...]:
        """The strongest lock on each relation."""
        return strongest(n for s in self.statements(place, params) for n in s.locks)

    def rehearsed(self, place: Place, params: P) -> tuple[Statement, ...]:
        """What the rehearsal executes on a copy of the table, in a transaction that is rolled back."""
        return tuple(replace(s, sql=in_transaction(s.sql)) for s in self.statements(place, params))

    def find_row(self, place: Place, params: P, columns: Sequence[str]) -> tuple[str, Sql] | None:  # noqa: ARG002
        """Of a step that makes a row: the row's name, and the query for these columns of it."""
        return None

    @abstractmethod
    def preflight(self, place: Place, params: P) -> list[Finding]:
        """The operation's own findings, all at once; reads only.  What holds for every
        operation is in operations/shared/preflight.py.
        """

    @abstractmethod
    def state(self, place: Place, params: P) -> State:
        """What the catalog (for a backfill: the journal) says."""

    @abstractmethod
    def execute(self, context: Context, params: P) -> int:
        """Do it; returns the rows that were written."""

    @abstractmethod
    def verify(self, place: Place, params: P) -> list[Finding]:
        """Read the world again, not our memory: what is not as promised."""


_CONCURRENTLY = re.compile(r"^((?:CREATE (?:UNIQUE )?|DROP )INDEX) CONCURRENTLY ")


def in_transaction(statement: Sql) -> Sql:
    """A concurrent build or drop cannot run in a transaction; the plain one makes the same."""
    text = statement.as_string(None)
    return sql.SQL(_CONCURRENTLY.sub(r"\1 ", text)) if _CONCURRENTLY.match(text) else statement


__all__ = [
    "Context",
    "Kind",
    "Operation",
    "Place",
    "State",
    "Statement",
    "TableParams",
]
