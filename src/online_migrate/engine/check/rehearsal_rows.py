"""The copies of a rehearsal: made, filled with rows that can be migrated, and connected by their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from psycopg import sql

from online_migrate.engine.check.rehearsal_scope import Link, Scope
from online_migrate.operations.contract.effects import CreatesIndex, FillsColumn, MakesRow
from online_migrate.operations.registry import OPERATIONS
from online_migrate.postgres.catalog import ConstraintInfo
from online_migrate.postgres.sample_rows import copy_rows, insert_rows, read_places, referenced_places
from online_migrate.postgres.stand_ins import StandIns


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The copies of one group of tables."""

    scope: Scope
    copies: StandIns
    closure: list[str]
    """the tables, each after those that need it"""
    ensure_time: Callable[[], None]

    def build(self) -> set[str]:
        """Returns the tables whose copy gets no row of a step: it would take a value of the live sequence."""
        there = [n for n in self.closure if self.scope.live(n) is not None]
        self.copies.create(there)
        for name in there:
            self.ensure_time()
            self._fill(name)
        self._bring_own_parents(there)
        self._keys(there)
        self.copies.finish(there)
        return {name for name in there if self._lacks_sequence(name)}

    def _fill(self, name: str) -> None:
        table = self.scope.live(name)
        assert table is not None  # only those that exist are filled
        planned = [
            [c for c in e.columns if c is not None]
            for e in self.scope.effects_on(name)
            if isinstance(e, CreatesIndex)
        ]
        existing = [[c for c in i.columns if c is not None] for i in table.indexes]
        wanted = [
            referenced_places(self.copies, child=link.child, column=link.column, parent=table, key=link.key)
            for link in self._links(parent=name)
            if link.child != name
        ]
        copy_rows(self.copies, table, planned + existing, wanted=[*wanted, *self._rows_of_plan(name)])

    def _lacks_sequence(self, name: str) -> bool:
        makes_row = any(isinstance(e, MakesRow) for e in self.scope.effects_on(name))
        return makes_row and not self.copies.own_sequences(name)

    def _rows_of_plan(self, table: str) -> Iterator[sql.Composed]:
        """Rows that a step would adopt."""
        for step in self.scope.steps:
            if step.table == table:
                found = OPERATIONS[step.spec.operation].find_row(
                    self.scope.seen.place(step), step.spec.params, ["ctid"]
                )
                if found is not None:
                    yield sql.Composed([found[1]])

    def _links(self, *, parent: str) -> list[Link]:
        """To the table, along columns that exist, from copies that exist."""
        found = dict.fromkeys(chain.from_iterable(map(self.scope.links, self.closure)))
        return [link for link in found if link.parent == parent and self._is_live(link)]

    def _is_live(self, link: Link) -> bool:
        child, parent = self.scope.live(link.child), self.scope.live(link.parent)
        return (
            child is not None
            and parent is not None
            and link.column in child.columns
            and link.key in parent.columns
            and link.child in self.copies.shapes
            and link.parent in self.copies.shapes
        )

    def _bring_own_parents(self, there: list[str]) -> None:
        """Rows that later rows of the copies reference: of the table itself, and along a cycle."""
        for name in there:
            table = self.scope.live(name)
            assert table is not None
            for link in self._links(parent=name):
                query = referenced_places(
                    self.copies, child=link.child, column=link.column, parent=table, key=link.key
                )
                if table.kind == "r":
                    insert_rows(self.copies, table, read_places(self.copies, table, query))

    def _keys(self, there: list[str]) -> None:
        """Existing foreign keys of columns that the plan fills; not of a partitioned table, which takes none
        NOT VALID before 18.

        NOT VALID, because the parents of old rows may not have been copied.
        """
        for name in (n for n in there if self.copies.shapes.get(n) is not None and not self._is_root(n)):
            filled = {e.column for e in self.scope.effects_on(name) if isinstance(e, FillsColumn)}
            for key in self.scope.keys_of(name, filled):
                if name in self.copies.shapes and key.ref_table in self.copies.shapes:
                    self._add_key(name, key)

    def _is_root(self, name: str) -> bool:
        table = self.scope.live(name)
        return table is not None and table.kind == "p"

    def _add_key(self, name: str, key: ConstraintInfo) -> None:
        text = "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) NOT VALID"
        add = sql.SQL(text).format(
            self.copies.name(name),
            sql.Identifier(key.name),
            sql.Identifier(key.columns[0]),
            self.copies.name(str(key.ref_table)),
            sql.Identifier(key.ref_columns[0]),
        )
        self.copies.attempt(add)
