"""What a step changes in the schema, as frozen records; later steps and `check` read them, tests compare
them.

An operation declares its effects as it declares its locks. No code asks for another operation's name or
parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Literal

from online_migrate.backfill.value_params import ValueParams
from online_migrate.plan.model import Step

OnDelete = Literal["no action", "restrict", "cascade", "set null"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One change of one table."""

    table: str
    reaches_descendants: ClassVar[bool] = False
    """PostgreSQL changes partitions and inheriting tables together with the table"""

    @property
    def uses(self) -> tuple[str, ...]:
        """Columns of the table that must exist when the step starts."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatesTable(Effect):
    columns: tuple[str, ...]
    has_all_columns: bool = True
    """False where the DDL takes columns from another table, which is then not known without a database"""
    references: tuple[str, ...] = ()
    """tables that its foreign keys reference; itself not"""
    made_from: tuple[str, ...] = ()
    """tables whose columns it takes: LIKE, INHERITS, PARTITION OF"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropsTable(Effect):
    """The table with its columns, indexes and constraints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddsColumn(Effect):
    """A nullable column; rows that exist already have NULL in it."""

    column: str
    type: str
    reaches_descendants: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DropsColumn(Effect):
    column: str
    reaches_descendants: ClassVar[bool] = True

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetsDefault(Effect):
    """Of rows that are written from then on."""

    column: str
    default: str | int | bool
    """as the plan writes it: a constant, a reference or an expression"""
    is_expression: bool = False
    reaches_descendants: ClassVar[bool] = True

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropsDefault(Effect):
    column: str
    reaches_descendants: ClassVar[bool] = True

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)


class Source(Enum):
    """Where the value of a filled column comes from."""

    INSTANT = "instant"
    """the default, which PostgreSQL stores once for all old rows; no row is written"""
    CONSTANT = "constant"
    PARENT = "parent"
    EXPRESSION = "expression"


@dataclass(frozen=True, slots=True, kw_only=True)
class FillsColumn(Effect):
    """Every row that has NULL in the column gets a value."""

    column: str
    source: Source
    value: ValueParams
    """as the plan has it"""
    skip_triggers: bool = False
    """its batches fire no triggers, those of foreign keys included"""
    soak_s: float = 0.0
    """how long no row with a NULL may have been seen when it ends"""

    @property
    def is_backfill(self) -> bool:
        """Rows are written, in batches."""
        return self.source is not Source.INSTANT

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakesNotNull(Effect):
    column: str
    reaches_descendants: ClassVar[bool] = True

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropsNotNull(Effect):
    column: str
    reaches_descendants: ClassVar[bool] = True

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatesIndex(Effect):
    """A unique one makes a uniqueness."""

    name: str
    """empty where PostgreSQL chooses it"""
    columns: tuple[str | None, ...]
    """in order; None for an expression"""
    is_unique: bool
    has_predicate: bool = False
    nulls_not_distinct: bool = False
    traits: frozenset[str] = frozenset()
    """what is special about it besides its columns: ``INCLUDE note``, ``NULLS NOT DISTINCT``, …"""

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(c for c in self.columns if c is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakesKey(Effect):
    """The unique index of that name becomes a unique or primary key constraint."""

    name: str
    columns: tuple[str, ...]
    definition: str
    """as pg_get_constraintdef has it, without quotes"""

    @property
    def uses(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class DropsIndex(Effect):
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsUnique(Effect):
    """Every unique index and constraint on exactly these columns is dropped, whatever its name."""

    columns: tuple[str, ...]
    successor: str
    """the unique index on these columns and more that must exist before"""
    index: str = ""
    """instead of the columns: the name of the one that is dropped"""

    @property
    def uses(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class AddsForeignKey(Effect):
    name: str
    column: str
    ref_table: str
    ref_column: str
    on_delete: OnDelete

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddsCheck(Effect):
    name: str
    expression: str
    columns: tuple[str, ...] = ()
    """of the table, that the expression names"""
    reaches_descendants: ClassVar[bool] = True

    @property
    def uses(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class DropsConstraint(Effect):
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MakesRow(Effect):
    """One row exists; later steps name it ``<id.column>``."""

    row: str
    columns: tuple[str, ...]
    """that the row is found by or written with"""
    secret_columns: tuple[str, ...] = ()
    """those of them that are written with a secret, or with what is derived from one"""

    @property
    def uses(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadsColumns(Effect):
    """No change: the columns must exist when the step starts."""

    columns: tuple[str, ...]

    @property
    def uses(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One effect, and the step that has it."""

    number: int
    """of the step in the plan, from 0"""
    step: Step
    effect: Effect


class PlanEffects:
    """The steps of a plan in order, and what each changes."""

    def __init__(self, steps: Iterable[tuple[Step, tuple[Effect, ...]]] = ()) -> None:
        pairs = tuple(steps)
        self.steps: tuple[Step, ...] = tuple(step for step, _ in pairs)
        self._numbers = {step.key: number for number, step in enumerate(self.steps)}
        self._of_step = tuple(effects for _, effects in pairs)
        self.changes = tuple(
            Change(number=number, step=step, effect=effect)
            for number, (step, effects) in enumerate(pairs)
            for effect in effects
        )
        """every change of the plan, in order"""
        self.of_rows = tuple(
            c
            for c in self.changes
            if isinstance(c.effect, AddsColumn | FillsColumn | CreatesTable | MakesRow)
        )
        """those that a later backfill depends on"""
        self._on_table: dict[str, list[Change]] = {}
        for change in self.changes:
            self._on_table.setdefault(change.effect.table, []).append(change)

    def number(self, step: Step) -> int:
        """Of the step in the plan; after all others where it is not in the plan."""
        return self._numbers.get(step.key, len(self.steps))

    def of(self, step: Step) -> tuple[Effect, ...]:
        """What the step changes."""
        return self._of_step[self._numbers[step.key]] if step.key in self._numbers else ()

    def on(self, table: str) -> tuple[Change, ...]:
        """The changes of one table, in order; not those that reach it from a table above it."""
        return tuple(self._on_table.get(table, ()))

    def fill_before(self, step: Step, table: str, column: str) -> tuple[Step, FillsColumn] | None:
        """The last backfill of the column before the step, if there is one."""
        end = self.number(step)
        found = (
            (c.step, c.effect)
            for c in reversed(self.on(table))
            if c.number < end
            and isinstance(c.effect, FillsColumn)
            and c.effect.is_backfill
            and c.effect.column == column
        )
        return next(found, None)
