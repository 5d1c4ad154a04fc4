"""The schema that a step finds when its turn comes: the effects of earlier steps, folded over the catalog.

So `check` judges a step by what the steps before it leave. Without a database the catalog is unknown: what no
step of the plan touches is then unknown too, and is never said to be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from online_migrate.backfill.hazards.filled_column import PlanContext
from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import (
    AddsCheck,
    AddsColumn,
    AddsForeignKey,
    Change,
    CreatesIndex,
    CreatesTable,
    DropsColumn,
    DropsConstraint,
    DropsDefault,
    DropsIndex,
    DropsNotNull,
    DropsTable,
    Effect,
    EndsUnique,
    FillsColumn,
    MakesKey,
    MakesNotNull,
    MakesRow,
    PlanEffects,
    SetsDefault,
)
from online_migrate.postgres.catalog import Catalog, TableInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnThen:
    """A column as it will be; None where it cannot be known."""

    name: str
    type: str | None = None
    is_not_null: bool | None = None
    has_default: bool | None = None
    default_by_plan: bool | None = None
    """whether the last step that touched its default set it; None where no step does"""
    added_by: Change | None = None
    """the step that adds it, where the catalog does not have it yet"""
    filled_by: Change | None = None
    """the last step that fills it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexThen:
    """An index as it will be."""

    name: str
    columns: tuple[str | None, ...]
    is_unique: bool
    has_predicate: bool
    nulls_not_distinct: bool = False
    traits: frozenset[str] = frozenset()
    """of one that a step builds: see :class:`CreatesIndex`"""
    built_by: Change | None = None
    """the step that builds it, where the catalog does not have it yet"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyThen:
    """A foreign key as it will be."""

    name: str
    columns: tuple[str, ...]
    ref_table: str
    ref_columns: tuple[str, ...]
    on_delete: str
    added_by: Change | None = None


@dataclass(slots=True, kw_only=True)
class TableThen:
    """A table as it will be."""

    name: str
    info: TableInfo | None
    """as the catalog has it; None where a step creates it, or without a database"""
    created_by: Change | None = None
    has_all_columns: bool = False
    """True: a column that is not in ``columns`` does not exist"""
    columns: dict[str, ColumnThen] = field(default_factory=dict)
    indexes: dict[str, IndexThen] = field(default_factory=dict)
    keys: list[KeyThen] = field(default_factory=list)
    has_row_of_plan: bool = False
    """a step creates it, or inserts a row"""

    def lacks(self, column: str) -> bool:
        """It is certain that the column does not exist."""
        return self.has_all_columns and column not in self.columns

    def planned_columns(self) -> dict[str, str]:
        """Columns that steps add and the catalog does not have yet, and their types."""
        return {
            c.name: c.type for c in self.columns.values() if c.added_by is not None and c.type is not None
        }

    def planned_indexes(self, column: str) -> list[IndexThen]:
        """Indexes on the column that steps build and the catalog does not have yet."""
        return [i for i in self.indexes.values() if i.built_by is not None and column in i.columns]


class Schema:
    """The schema after the first ``end`` steps of a plan."""

    def __init__(self, effects: PlanEffects, catalog: Catalog | None, end: int) -> None:
        self._effects = effects
        self._catalog = catalog
        self._end = end

    def table(self, name: str) -> TableThen | None:
        """The table as it will be; None where it is certain that it will not exist."""
        info = None if self._catalog is None else self._catalog.table(name)
        table = None if self._catalog is not None and info is None else _as_now(name, info)
        for change in self.changes(name):
            table = _after(table, change, name)
        return table

    def changes(self, name: str) -> Iterator[Change]:
        """What the steps so far change in the table, in order; changes of tables above it that reach it
        included.
        """
        info = None if self._catalog is None else self._catalog.table(name)
        above = () if info is None else info.ancestors
        found = [c for c in self._effects.on(name) if c.number < self._end]
        for schema, ancestor in above:
            if info is not None and schema == info.schema:
                found += [
                    c for c in self._effects.on(ancestor) if c.number < self._end and _reaches(c.effect)
                ]
        yield from sorted(found, key=lambda c: c.number) if above else found

    def column(self, table: str, column: str) -> ColumnThen | None:
        """The column as it will be; None where it will not exist, or nothing is known of it."""
        found = self.table(table)
        return None if found is None else found.columns.get(column)


def schema_before(place: Place) -> Schema:
    """The schema that the step finds."""
    return Schema(place.effects, place.catalog, place.effects.number(place.step))


def schema_after(place: Place) -> Schema:
    """The schema that the step leaves."""
    return Schema(place.effects, place.catalog, place.effects.number(place.step) + 1)


def plan_context(place: Place) -> PlanContext:
    """What a backfill must know of the other steps: columns that exist by then, are filled by then, or are
    filled later.
    """
    now = place.effects.number(place.step)
    added, before, later, made = dict[tuple[str, str], str](), set(), set(), set()
    for change in place.effects.of_rows:
        effect = change.effect
        if isinstance(effect, CreatesTable | MakesRow):
            made.add(effect.table)
        elif isinstance(effect, AddsColumn) and change.number < now:
            added |= {(name, effect.column): effect.type for name in place.family_of(effect.table)}
        elif isinstance(effect, FillsColumn) and change.number < now:
            is_own = effect.is_backfill and change.step.partition is None
            names = (effect.table,) if is_own else place.family_of(effect.table)
            before |= {(name, effect.column) for name in names}
        elif isinstance(effect, FillsColumn) and change.number > now and effect.is_backfill:
            later.add((effect.table, effect.column))
    return PlanContext(added=added, filled_before=before, filled_later=later, made=made)


def _reaches(effect: Effect) -> bool:
    is_instant = isinstance(effect, FillsColumn) and not effect.is_backfill
    return effect.reaches_descendants or is_instant


def _as_now(name: str, info: TableInfo | None) -> TableThen:
    if info is None:
        return TableThen(name=name, info=None)
    return TableThen(
        name=name,
        info=info,
        has_all_columns=True,
        columns={
            c.name: ColumnThen(
                name=c.name, type=c.type, is_not_null=c.is_not_null, has_default=c.default is not None
            )
            for c in info.columns.values()
        },
        indexes={
            i.name: IndexThen(
                name=i.name,
                columns=i.columns,
                is_unique=i.is_unique,
                has_predicate=i.has_predicate,
                nulls_not_distinct=i.nulls_not_distinct,
            )
            for i in info.indexes
            if i.is_valid
        },
        keys=[
            KeyThen(
                name=k.name,
                columns=k.columns,
                ref_table=str(k.ref_table),
                ref_columns=k.ref_columns,
                on_delete=k.on_delete,
            )
            for k in info.foreign_keys
        ],
    )


def _after(table: TableThen | None, change: Change, name: str) -> TableThen | None:
    """The table once more, with one effect on it."""
    effect = change.effect
    if isinstance(effect, DropsTable):
        return None
    if isinstance(effect, CreatesTable):
        return _created(table, effect, change)
    if table is None:
        return None
    if isinstance(effect, MakesRow):
        table.has_row_of_plan = True
    elif isinstance(
        effect,
        AddsColumn | SetsDefault | DropsDefault | FillsColumn | MakesNotNull | DropsNotNull | DropsColumn,
    ):
        _change_column(table, effect, change)
    elif isinstance(effect, CreatesIndex | DropsIndex | EndsUnique):
        _change_indexes(table, effect, change)
    elif isinstance(effect, AddsForeignKey):
        key = KeyThen(
            name=effect.name,
            columns=(effect.column,),
            ref_table=effect.ref_table,
            ref_columns=(effect.ref_column,),
            on_delete=effect.on_delete,
            added_by=change,
        )
        if all((k.columns, k.ref_table) != (key.columns, key.ref_table) for k in table.keys):
            table.keys.append(key)
    elif isinstance(effect, DropsConstraint):
        table.keys = [k for k in table.keys if k.name != effect.name]
        table.indexes.pop(effect.name, None)
    else:
        assert isinstance(effect, AddsCheck | MakesKey) or not effect.reaches_descendants, (name, effect)
    return table


def _created(table: TableThen | None, effect: CreatesTable, change: Change) -> TableThen:
    """One that exists already is adopted as it is."""
    if table is not None and table.info is not None:
        table.has_row_of_plan = True
        return table
    return TableThen(
        name=effect.table,
        info=None,
        created_by=change,
        has_all_columns=effect.has_all_columns,
        columns={name: ColumnThen(name=name) for name in effect.columns},
        has_row_of_plan=True,
    )


def _change_column(
    table: TableThen,
    effect: AddsColumn | SetsDefault | DropsDefault | FillsColumn | MakesNotNull | DropsNotNull | DropsColumn,
    change: Change,
) -> None:
    name = effect.column
    if isinstance(effect, DropsColumn):
        table.columns.pop(name, None)
        return
    if isinstance(effect, AddsColumn):
        if name not in table.columns:
            table.columns[name] = ColumnThen(
                name=name, type=effect.type, is_not_null=False, has_default=False, added_by=change
            )
        return
    if table.lacks(name):
        return  # `check` reports it; the step cannot change what does not exist
    column = table.columns.get(name, ColumnThen(name=name))
    if isinstance(effect, SetsDefault | DropsDefault):
        is_set = isinstance(effect, SetsDefault)
        column = replace(column, has_default=is_set, default_by_plan=is_set)
    elif isinstance(effect, FillsColumn):
        column = replace(column, filled_by=change)
    else:
        column = replace(column, is_not_null=isinstance(effect, MakesNotNull))
    table.columns[name] = column


def _change_indexes(table: TableThen, effect: CreatesIndex | DropsIndex | EndsUnique, change: Change) -> None:
    if isinstance(effect, DropsIndex):
        table.indexes.pop(effect.name, None)
    elif isinstance(effect, EndsUnique) and effect.index:
        table.indexes.pop(effect.index, None)
    elif isinstance(effect, EndsUnique):
        ended = [
            i.name
            for i in table.indexes.values()
            if i.is_unique and not i.has_predicate and set(i.columns) == set(effect.columns)
        ]
        for name in ended:
            del table.indexes[name]
    elif effect.name not in table.indexes:
        table.indexes[effect.name] = IndexThen(
            name=effect.name,
            columns=effect.columns,
            is_unique=effect.is_unique,
            has_predicate=effect.has_predicate,
            nulls_not_distinct=effect.nulls_not_distinct,
            traits=effect.traits,
            built_by=change,
        )
