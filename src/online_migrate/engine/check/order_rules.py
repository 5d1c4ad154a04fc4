"""Rules about order: a step that needs what only a later step makes, or comes after what relies on it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from online_migrate.engine.check.plot import Contradiction, Plot, Rule, line_of
from online_migrate.findings import Severity
from online_migrate.operations.contract.effects import (
    AddsColumn,
    AddsForeignKey,
    Change,
    CreatesIndex,
    CreatesTable,
    DropsDefault,
    EndsUnique,
    FillsColumn,
    MakesNotNull,
    ReadsColumns,
)
from online_migrate.operations.schema_before import TableThen


def _table_too_early(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """A table that a later step creates, and that does not exist before."""
    effect = change.effect
    names = effect.references if isinstance(effect, CreatesTable) else (effect.table,)
    for name in names:
        created = [c for c in plot.effects.on(name) if isinstance(c.effect, CreatesTable)]
        if not created or created[0].number <= change.number:
            continue
        if plot.catalog is None or plot.catalog.table(name) is None:
            yield Contradiction(
                code="used_before_created",
                step=change.step,
                other=created[0].step,
                table=name,
                fact=f"uses table {{tables}}, which the later step {line_of(created[0].step)} creates",
                remedy=f"move this step below {line_of(created[0].step)}",
            )


def _column_too_early(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """A column that a later step adds, or that nothing adds."""
    effect, table = change.effect, plot.before(change)
    if table is not None and table.info is not None and _is_created(plot, change):
        return  # whether the existing table matches its DDL is for create_tables to find
    own = {e.column for e in plot.effects.of(change.step) if isinstance(e, AddsColumn)}
    for name in effect.uses:
        if name in own or (table is not None and name in table.columns and _is_known(table, name)):
            continue
        adds = [c for c in plot.later(change) if isinstance(c.effect, AddsColumn) and c.effect.column == name]
        if adds:
            yield Contradiction(
                code="used_before_added",
                step=change.step,
                other=adds[0].step,
                table=effect.table,
                fact=f"uses column {name} of {{tables}}, which the later step {line_of(adds[0].step)} adds",
                remedy=f"move this step below {line_of(adds[0].step)}",
            )
        elif table is not None and table.lacks(name):
            near = difflib.get_close_matches(name, list(table.columns), n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield Contradiction(
                code="unknown_column",
                step=change.step,
                other=None,
                table=effect.table,
                fact=f"table {{tables}} has no column {name}",
                remedy=f"correct {change.step.spec.where}{meant}",
            )


def _is_created(plot: Plot, change: Change) -> bool:
    """This step, or an earlier one, creates the table unless it exists."""
    return any(
        isinstance(c.effect, CreatesTable) and c.number <= change.number
        for c in plot.effects.on(change.effect.table)
    )


def _is_known(table: TableThen, name: str) -> bool:
    """The column exists for certain, not only because another step touches it."""
    column = table.columns[name]
    return table.has_all_columns or column.added_by is not None


def _filled_too_late(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """A backfill below what relies on it: the column's NOT NULL, the end of its default, a unique index on
    it.
    """
    effect = change.effect
    if not isinstance(effect, FillsColumn) or not effect.is_backfill:
        return
    table = plot.before(change)
    column = None if table is None else table.columns.get(effect.column)
    if table is None or table.created_by is not None or (column is not None and column.filled_by is not None):
        return  # nothing to fill in a new table; filled already by an earlier step
    is_added = any(
        isinstance(c.effect, AddsColumn) and c.effect.column == effect.column for c in plot.earlier(change)
    )
    for other in plot.earlier(change):
        before = other.effect
        if isinstance(before, MakesNotNull) and before.column == effect.column:
            code, what = "not_null_before_backfill", f"makes {effect.column} of {{tables}} NOT NULL"
        elif isinstance(before, DropsDefault) and before.column == effect.column:
            code, what = (
                "default_dropped_before_backfill",
                f"drops the default of {effect.column} of {{tables}}",
            )
        else:
            continue
        yield Contradiction(
            code=code,
            step=change.step,
            other=other.step,
            table=effect.table,
            fact=f"{line_of(other.step)} {what} before this step fills it",
            remedy=f"move this step above {line_of(other.step)}",
            severity=Severity.STOP if is_added else Severity.WARN,
            is_moot_once_done=True,
        )


def _unique_before_fill(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """A unique index on the column that a later backfill fills makes each of its updates a key update."""
    effect = change.effect
    if not isinstance(effect, CreatesIndex) or not effect.is_unique:
        return
    for other in plot.later(change):
        fill = other.effect
        if not isinstance(fill, FillsColumn) or not fill.is_backfill or fill.column not in effect.columns:
            continue
        yield Contradiction(
            code="unique_above_backfill",
            step=change.step,
            other=other.step,
            table=effect.table,
            fact=f"unique index {effect.name} of {{tables}} is on {fill.column}, which the later step"
            f" {line_of(other.step)} fills: each update would be a key update, which inserts of child rows"
            " and the batches wait for",
            remedy=f"move this step below {line_of(other.step)}",
        )
        return


def _unique_ended_before_key(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """A foreign key to a column whose unique an earlier step has dropped."""
    effect = change.effect
    if not isinstance(effect, AddsForeignKey):
        return
    for other in plot.effects.on(effect.ref_table):
        if (
            other.number < change.number
            and isinstance(other.effect, EndsUnique)
            and set(other.effect.columns) == {effect.ref_column}
        ):
            yield Contradiction(
                code="unique_dropped_before_foreign_key",
                step=change.step,
                other=other.step,
                table=effect.table,
                fact=f"the foreign key of {{tables}} needs a unique on"
                f" {effect.ref_table}.{effect.ref_column}, which"
                f" {line_of(other.step)} drops before",
                remedy="reference the primary key, or remove the swap_unique",
            )


def _parent_filled_later(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """Rows take their value from a parent column that a later step fills."""
    parents = {
        (e.table, name)
        for e in plot.effects.of(change.step)
        if isinstance(e, ReadsColumns)
        for name in e.uses
    }
    if not isinstance(change.effect, FillsColumn):
        return
    for table, name in sorted(parents - {(change.effect.table, change.effect.column)}):
        fills = [
            c
            for c in plot.effects.on(table)
            if isinstance(c.effect, FillsColumn)
            and c.effect.column == name
            and c.effect.is_backfill
            and c.step.spec
            is not change.step.spec  # the order within a table set is a question to the catalog
        ]
        if fills and all(c.number > change.number for c in fills):
            yield Contradiction(
                code="parent_filled_later",
                step=change.step,
                other=fills[0].step,
                table=change.effect.table,
                fact=f"rows of {{tables}} take their value from {table}.{name}, which the later step"
                f" {line_of(fills[0].step)} fills",
                remedy=f"move this step below {line_of(fills[0].step)}: parents first",
            )


ORDER_RULES: tuple[Rule, ...] = (
    _table_too_early,
    _column_too_early,
    _filled_too_late,
    _unique_before_fill,
    _unique_ended_before_key,
    _parent_filled_later,
)
