"""Rules about swap_unique: what must exist before a unique is dropped."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.engine.check.plot import Contradiction, Plot, Rule, line_of
from online_migrate.operations.contract.effects import (
    Change,
    CreatesIndex,
    EndsUnique,
)
from online_migrate.operations.schema_before import IndexThen, TableThen
from online_migrate.plan.model import Step


def _swapped_too_early(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """A unique that is swapped without its successor, as far as the plan alone can tell."""
    effect, table = change.effect, plot.before(change)
    if not isinstance(effect, EndsUnique) or table is None:
        return
    index = table.indexes.get(effect.successor)
    builds = [c for c in plot.later(change) if _builds(c, effect.successor)]
    if index is None and builds:
        what = f"the later step {line_of(builds[0].step)} builds its successor {effect.successor}"
        remedy = f"move this step below {line_of(builds[0].step)}"
        yield _no_successor(change, builds[0].step, what, remedy)
    elif index is None and table.created_by is not None:
        what = f"no step builds its successor {effect.successor}"
        yield _no_successor(change, None, what, "build it before, by create_index with `unique: true`")
    elif index is not None:
        yield from _wrong_successor(change, index)
        if not index.nulls_not_distinct and not effect.index:
            yield from _nullable_successor(change, table, index.columns)


def _wrong_successor(change: Change, index: IndexThen) -> Iterator[Contradiction]:
    effect = change.effect
    assert isinstance(effect, EndsUnique)
    if index.built_by is not None:
        held = ", ".join(str(c) for c in index.columns)
        if not index.is_unique or not set(effect.columns) < set(index.columns):
            what = (
                f"its successor {effect.successor}, which {line_of(index.built_by.step)} builds on ({held}),"
                " is not"
                f" unique on ({', '.join(effect.columns)}) and more"
            )
            yield _no_successor(
                change, index.built_by.step, what, "correct `columns` or `unique` of that step"
            )


def _nullable_successor(
    change: Change, table: TableThen, columns: tuple[str | None, ...]
) -> Iterator[Contradiction]:
    """NULLs are distinct: a unique index on a column that can be NULL keeps no duplicates out."""
    effect = change.effect
    assert isinstance(effect, EndsUnique)
    for name in columns:
        column = table.columns.get(str(name))
        if name in effect.columns or column is None or column.is_not_null is not False:
            continue
        what = f"{name} of its successor {effect.successor} can be NULL, so that it keeps no duplicates out"
        yield _no_successor(change, None, what, f"add a set_not_null of {name} before this step")


def _builds(change: Change, name: str) -> bool:
    return isinstance(change.effect, CreatesIndex) and change.effect.name == name


def _no_successor(change: Change, other: Step | None, what: str, remedy: str) -> Contradiction:
    return Contradiction(
        code="swap_without_successor",
        step=change.step,
        other=other,
        table=change.effect.table,
        fact=f"drops a unique of {{tables}}, but {what}",
        remedy=remedy,
    )


SWAP_RULES: tuple[Rule, ...] = (_swapped_too_early,)
