"""create_index: CREATE INDEX CONCURRENTLY, watched; an invalid index of an earlier try is dropped and built
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from psycopg import sql
from pydantic import Field, model_validator

from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Context,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import CreatesIndex, Effect
from online_migrate.operations.shared.dropped_partitions import unless_dropped
from online_migrate.operations.shared.index_names import read_index
from online_migrate.operations.shared.index_text import (
    column_of_key,
    ensure_predicate,
    traits_of_key,
)
from online_migrate.operations.shared.index_tree import IndexTree
from online_migrate.operations.shared.new_index import MANUAL, NewIndex
from online_migrate.operations.shared.steps import run_window
from online_migrate.plan.model import Name, Phase
from online_migrate.postgres.search_path import SearchPath


class CreateIndexParams(TableParams):
    """An index, built while the application writes."""

    name: str
    """name of the index; <table> stands for the name of the table"""
    columns: list[str] = Field(default_factory=list)
    """its columns, in order; give exactly one of columns and keys"""
    keys: list[str] = Field(default_factory=list)
    """its keys as CREATE INDEX has them, in order: ``lower(code)``, ``code DESC NULLS LAST``, ``code
    text_pattern_ops``, ``code COLLATE "C"``"""
    unique: bool = False
    """a unique index: the build ends with an error, and drops the index, where two rows have the same values
    """
    include: list[str] = Field(default_factory=list)
    """further columns, for index-only scans"""
    where: str | None = Field(default=None, min_length=1)
    """a condition: a partial index over the rows that it is true for"""
    nulls_not_distinct: bool = False
    """of a unique index, from PostgreSQL 15 on: two NULLs are the same value"""
    method: Name = "btree"
    """the access method"""

    @model_validator(mode="after")
    def _is_one_index(self) -> CreateIndexParams:
        if bool(self.columns) == bool(self.keys):
            raise ValueError("give exactly one of columns (names) and keys (as CREATE INDEX has them)")
        if self.nulls_not_distinct and not self.unique:
            raise ValueError("nulls_not_distinct belongs to a unique index")
        for key in self.keys:
            column_of_key(key)
        if self.where is not None:
            ensure_predicate(self.where)
        return self

    @property
    def key_columns(self) -> tuple[str | None, ...]:
        """In order; None for an expression."""
        return tuple(self.columns) or tuple(column_of_key(key) for key in self.keys)

    @property
    def is_plain(self) -> bool:
        """Columns, and nothing else that the index is made of."""
        return not (self.keys or self.include or self.where or self.nulls_not_distinct) and (
            self.method == "btree"
        )

    @property
    def traits(self) -> frozenset[str]:
        """What is special about it besides its columns."""
        nulls = ["NULLS NOT DISTINCT"] * self.nulls_not_distinct
        further = [f"INCLUDE {name}" for name in self.include]
        return frozenset([*nulls, *further]).union(*map(traits_of_key, self.keys))

    @property
    def as_sql(self) -> sql.Composed:
        """What follows the table's name in CREATE INDEX."""
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        parts: list[sql.Composable] = [
            sql.SQL("({})").format(sql.SQL(", ").join(map(sql.SQL, self.keys)) if self.keys else names)
        ]
        if self.method != "btree":
            parts.insert(0, sql.SQL("USING {}").format(sql.Identifier(self.method)))
        if self.include:
            parts.append(
                sql.SQL("INCLUDE ({})").format(sql.SQL(", ").join(map(sql.Identifier, self.include)))
            )
        if self.nulls_not_distinct:
            parts.append(sql.SQL("NULLS NOT DISTINCT"))
        if self.where is not None:
            parts.append(sql.SQL("WHERE ({})").format(sql.SQL(self.where)))
        return sql.SQL(" ").join(parts)


class CreateIndex(Operation[CreateIndexParams]):
    """Build an index with CREATE INDEX CONCURRENTLY, while the application reads and writes.

    What it does: two scans of the table. The build waits for every transaction and snapshot that is older
    than it; blockers are reported meanwhile. With `unique`, `check` looks for duplicates first. An index of
    this name with the same definition is adopted.

    Locks: SHARE UPDATE EXCLUSIVE on the table for as long as the build takes. It blocks no reads or writes,
    but other schema changes, VACUUM and ANALYZE of this table.

    Partitioned tables: an index of the root without rows (SHARE on the root alone, instant), a concurrent
    build on each partition, then each is attached: ACCESS EXCLUSIVE on its index, instant.

    On a crash: PostgreSQL leaves an INVALID index. A build that ends with an error drops it at once; after a
    crash, a lost connection or a cancel the next run drops it with DROP INDEX CONCURRENTLY and
    builds it again.

    How to undo: DROP INDEX CONCURRENTLY.
    """

    name = "create_index"
    phase = Phase.EXPAND
    summary = "build an index CONCURRENTLY"
    descendants = Descendants.APART
    takes_partitions = True
    Params: ClassVar[type[CreateIndexParams]] = CreateIndexParams

    def title(self, params: CreateIndexParams) -> str:
        return f"create_index {params.name}"

    def effects(self, place: Place, params: CreateIndexParams) -> tuple[Effect, ...]:
        return (
            CreatesIndex(
                table=place.table,
                name=place.fill(params.name),
                columns=params.key_columns,
                is_unique=params.unique,
                has_predicate=params.where is not None,
                nulls_not_distinct=params.nulls_not_distinct,
                traits=params.traits,
            ),
        )

    def statements(self, place: Place, params: CreateIndexParams) -> tuple[Statement, ...]:
        if not place.is_partitioned:
            return (self._index(place, params).create(),)
        tree, below = _tree(place, params), place.partitions()
        nodes = [place, *(place.at(p.names) for p in below if p.kind == "p")]
        builds = [self._index(leaf, _named(params, tree.name_at(leaf))).create() for leaf in place.leaves()]
        attached = [tree.attach(p) for p in reversed(below)]
        every = [*map(tree.create_only, nodes), *builds, *attached]
        return tuple(replace(s, group=n) for n, s in enumerate(every))

    def rehearsed(self, place: Place, params: CreateIndexParams) -> tuple[Statement, ...]:
        """Of a partitioned table: one statement that the server repeats on each partition."""
        if not place.is_partitioned:
            return super().rehearsed(place, params)
        return (_tree(place, params).create_all(),)

    def _index(self, place: Place, params: CreateIndexParams) -> NewIndex:
        return NewIndex(
            place=place,
            name=place.fill(params.name),
            definition=params.as_sql,
            keys=tuple(params.columns or params.keys),
            is_unique=params.unique,
            is_plain=params.is_plain,
            compares=tuple(params.columns) if params.is_plain else (),
        )

    def preflight(self, place: Place, params: CreateIndexParams) -> list[Finding]:
        index = self._index(place, params)
        below = self._conflicts_below(place, params) if place.is_partitioned else ()
        return [*index.findings(), *below]

    def _conflicts_below(self, place: Place, params: CreateIndexParams) -> Iterator[Finding]:
        """Of partitions whose index is not attached yet: something else has its name."""
        tree, connection = _tree(place, params), place.known.connection
        for partition in place.partitions():
            below = place.at(partition.names)
            index = self._index(below, _named(params, tree.name_at(below)))
            if index.state() is State.CONFLICT and not tree.is_attached(connection, partition):
                yield index.conflict()

    def state(self, place: Place, params: CreateIndexParams) -> State:
        return self._index(place, params).state()

    def execute(self, context: Context, params: CreateIndexParams) -> int:
        if not context.place.is_partitioned:
            self._index(context.place, params).build(context)
            return 0
        place, tree = context.place, _tree(context.place, params)
        self._create_only(context, tree, place)
        for partition in tree.not_attached(context.work):
            with unless_dropped(place, partition.names):
                below = context.at(partition.names)
                if partition.kind == "p":
                    self._create_only(context, tree, below.place)
                else:
                    self._index(below.place, _named(params, tree.name_at(below.place))).build(below)
        for partition in tree.not_attached(context.work, deepest_first=True):
            with unless_dropped(place, partition.names):
                run_window(context, [tree.attach(partition)])
        tree.ensure_valid(context.work)
        return 0

    def _create_only(self, context: Context, tree: IndexTree, place: Place) -> None:
        if read_index(context.work, place.schema, tree.name_at(place)) is None:
            run_window(context, [tree.create_only(place)])

    def verify(self, place: Place, params: CreateIndexParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = f"index {place.fill(params.name)} on {place.table} was dropped, is invalid, or differs"
        return [
            Finding(
                severity=Severity.STOP,
                code="index_gone",
                fact=fact,
                remedy="find out who changed it",
                manual=MANUAL,
            )
        ]


def _tree(place: Place, params: CreateIndexParams) -> IndexTree:
    path = SearchPath.ROLE if params.is_plain else SearchPath.PLAN
    return IndexTree(
        root=place, name=params.name, definition=params.as_sql, is_unique=params.unique, path=path
    )


def _named(params: CreateIndexParams, name: str) -> CreateIndexParams:
    return params.model_copy(update={"name": name})
