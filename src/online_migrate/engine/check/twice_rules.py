"""Rules about two steps that make the same thing, or things that exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.engine.check.plot import Contradiction, Plot, Rule, line_of
from online_migrate.findings import Severity
from online_migrate.operations.contract.effects import (
    AddsColumn,
    AddsForeignKey,
    Change,
    CreatesIndex,
    CreatesTable,
    MakesNotNull,
    SetsDefault,
)


def _created_twice(plot: Plot, change: Change) -> Iterator[Contradiction]:
    if not isinstance(change.effect, CreatesTable):
        return
    for other in plot.earlier(change):
        if isinstance(other.effect, CreatesTable):
            yield Contradiction(
                code="created_twice",
                step=change.step,
                other=other.step,
                table=change.effect.table,
                fact=f"table {{tables}} is created already by {line_of(other.step)}",
                remedy="remove one of the two CREATE TABLE statements",
                severity=Severity.WARN if other.effect == change.effect else Severity.STOP,
            )


def _added_twice(plot: Plot, change: Change) -> Iterator[Contradiction]:
    effect = change.effect
    if not isinstance(effect, AddsColumn):
        return
    default = _default_of(plot, change)
    for other in plot.earlier(change):
        if not isinstance(other.effect, AddsColumn) or other.effect.column != effect.column:
            continue
        before = _default_of(plot, other)
        is_same = other.effect.type == effect.type and (before is None or default == before)
        yield Contradiction(
            code="added_twice",
            step=change.step,
            other=other.step,
            table=effect.table,
            fact=f"column {effect.column} of {{tables}} is added already by {line_of(other.step)}"
            + ("" if is_same else ", with another type or default"),
            remedy="remove one of the two steps",
            severity=Severity.WARN if is_same else Severity.STOP,
        )


def _default_of(plot: Plot, change: Change) -> object:
    return next((e.default for e in plot.effects.of(change.step) if isinstance(e, SetsDefault)), None)


def _index_name_twice(plot: Plot, change: Change) -> Iterator[Contradiction]:
    """Tables and indexes share one namespace within a schema."""
    effect = change.effect
    if not isinstance(effect, CreatesIndex) or not effect.name:
        return
    first, is_same = plot.first_of_name[effect.name], plot.first_of_name[effect.name].effect == effect
    if first == change or (
        is_same and any(isinstance(e, CreatesTable) for e in plot.effects.of(change.step))
    ):
        return  # an index that comes with its table is not reported beside it
    if is_same:
        fact, remedy = (
            f"index {effect.name} is built already by {line_of(first.step)}",
            "remove one of the two",
        )
    else:
        what = "table" if isinstance(first.effect, CreatesTable) else f"index of {first.effect.table}"
        fact = (
            f"index {effect.name} of {{tables}} has the name of the {what} that {line_of(first.step)} creates"
        )
        remedy = f"give each index a name of its own, for example {effect.name}_<table>"
    yield Contradiction(
        code="index_name_twice",
        step=change.step,
        other=first.step,
        table=effect.table,
        fact=fact,
        remedy=remedy,
        severity=Severity.WARN if is_same else Severity.STOP,
    )


def _key_twice(plot: Plot, change: Change) -> Iterator[Contradiction]:
    effect = change.effect
    if not isinstance(effect, AddsForeignKey):
        return
    for other in plot.earlier(change):
        before = other.effect
        if not isinstance(before, AddsForeignKey):
            continue
        is_same = (before.column, before.ref_table, before.ref_column, before.on_delete) == (
            effect.column,
            effect.ref_table,
            effect.ref_column,
            effect.on_delete,
        )
        leads_alike = (before.column, before.ref_table) == (effect.column, effect.ref_table)
        if not (leads_alike or before.name == effect.name):
            continue
        yield Contradiction(
            code="foreign_key_twice",
            step=change.step,
            other=other.step,
            table=effect.table,
            fact=f"{line_of(other.step)} adds the same foreign key of {effect.column} of {{tables}} already"
            if is_same
            else f"{line_of(other.step)} adds another foreign key of this name, or of {effect.column} of"
            f" {{tables}}"
            f" to {effect.ref_table}",
            remedy="remove one of the two steps" if leads_alike else "give one of them another `name`",
            severity=Severity.WARN if is_same else Severity.STOP,
        )
        return


def _not_null_twice(plot: Plot, change: Change) -> Iterator[Contradiction]:
    effect = change.effect
    if not isinstance(effect, MakesNotNull):
        return
    for other in plot.earlier(change):
        if isinstance(other.effect, MakesNotNull) and other.effect.column == effect.column:
            yield Contradiction(
                code="not_null_twice",
                step=change.step,
                other=other.step,
                table=effect.table,
                fact=f"{line_of(other.step)} makes {effect.column} of {{tables}} NOT NULL already",
                remedy="remove one of the two steps",
                severity=Severity.WARN,
            )
            return


def _set_null_and_not_null(plot: Plot, change: Change) -> Iterator[Contradiction]:
    effect = change.effect
    if not isinstance(effect, AddsForeignKey) or effect.on_delete != "set null":
        return
    for other in plot.effects.on(effect.table):
        if isinstance(other.effect, MakesNotNull) and other.effect.column == effect.column:
            yield Contradiction(
                code="set_null_not_null",
                step=change.step,
                other=other.step,
                table=effect.table,
                fact=f"`on_delete: set null` writes NULL into {effect.column} of {{tables}}, which"
                f" {line_of(other.step)} makes NOT NULL: no parent row could be deleted (23502)",
                remedy="write `on_delete: cascade` or `on_delete: restrict`, or remove the set_not_null",
            )
            return


TWICE_RULES: tuple[Rule, ...] = (
    _created_twice,
    _added_twice,
    _index_name_twice,
    _key_twice,
    _not_null_twice,
    _set_null_and_not_null,
)
