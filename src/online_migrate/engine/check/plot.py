"""What the rules about contradictions read, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from online_migrate.findings import Severity
from online_migrate.operations.contract.effects import (
    Change,
    CreatesIndex,
    CreatesTable,
    PlanEffects,
)
from online_migrate.operations.schema_before import Schema, TableThen
from online_migrate.plan.model import Step
from online_migrate.postgres.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A step that cannot work, or makes no sense, together with another one."""

    code: str
    step: Step
    other: Step | None
    table: str
    fact: str
    """``{tables}`` stands for the tables: over a table set they are the only difference between steps of one
    line"""
    remedy: str
    severity: Severity = Severity.STOP
    is_moot_once_done: bool = False
    """nothing is left to decide once the other step is done"""


@dataclass(slots=True)
class Plot:
    """All changes of a plan, and the schema before each of them."""

    effects: PlanEffects
    catalog: Catalog | None
    first_of_name: dict[str, Change] = field(init=False, default_factory=dict)
    """the first step that gives a name to a table or an index: both share one namespace within a schema"""

    def __post_init__(self) -> None:
        for change in self.effects.changes:
            effect = change.effect
            if isinstance(effect, CreatesTable):
                self.first_of_name.setdefault(effect.table, change)
            elif isinstance(effect, CreatesIndex) and effect.name:
                self.first_of_name.setdefault(effect.name, change)

    def before(self, change: Change) -> TableThen | None:
        """The table of the change, as its step finds it."""
        return Schema(self.effects, self.catalog, change.number).table(change.effect.table)

    def earlier(self, change: Change) -> Iterator[Change]:
        """Changes of the same table by earlier steps."""
        return (c for c in self.effects.on(change.effect.table) if c.number < change.number)

    def later(self, change: Change) -> Iterator[Change]:
        """Changes of the same table by later steps."""
        return (c for c in self.effects.on(change.effect.table) if c.number > change.number)


Rule = Callable[[Plot, Change], Iterator[Contradiction]]


def line_of(step: Step) -> str:
    """A step by its title and its line in the plan."""
    return f"{step.spec.title} ({step.spec.where})"
