"""What a rehearsal needs beside a table: the tables that its steps read and reference, and those above and
below it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from online_migrate.backfill.value_params import ExpressionParams, FromParentParams
from online_migrate.engine.survey import Survey
from online_migrate.operations.contract.effects import (
    AddsForeignKey,
    CreatesTable,
    Effect,
    FillsColumn,
    MakesRow,
    ReadsColumns,
)
from online_migrate.plan.model import Step
from online_migrate.postgres.catalog import ConstraintInfo, TableInfo

DESCENDANTS: Final = 4
"""partitions and inheriting tables that are copied with a table"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A column whose values are keys of another table."""

    child: str
    column: str
    parent: str
    key: str


@dataclass(slots=True, kw_only=True)
class Scope:
    """The open steps, and how their tables hang together."""

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

    def links(self, table: str) -> Iterator[Link]:
        """Along planned foreign keys, along those of filled columns, and along the joins of a backfill."""
        filled = set()
        for effect in self.effects_on(table):
            if isinstance(effect, AddsForeignKey):
                yield Link(child=table, column=effect.column, parent=effect.ref_table, key=effect.ref_column)
            elif isinstance(effect, FillsColumn):
                filled.add(effect.column)
                before = table
                for join in effect.value.joins if isinstance(effect.value, FromParentParams) else ():
                    yield Link(child=before, column=join.on, parent=join.table, key=join.key)
                    before = join.table
        for key in self.keys_of(table, filled):
            yield Link(child=table, column=key.columns[0], parent=str(key.ref_table), key=key.ref_columns[0])

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
