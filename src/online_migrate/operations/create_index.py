"""create_index: CREATE INDEX CONCURRENTLY, watched; an invalid index of an earlier try is dropped and built
again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import psycopg
from psycopg import sql
from pydantic import Field, model_validator

from online_migrate.errors import VerificationFailed
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Context,
    Kind,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import CreatesIndex, Effect
from online_migrate.operations.shared.dropped_partitions import unless_dropped
from online_migrate.operations.shared.duplicates import find_duplicates, read_duplicates, secret_columns
from online_migrate.operations.shared.index_names import read_index
from online_migrate.operations.shared.index_text import (
    column_of_key,
    definition_on_copy,
    ensure_predicate,
    traits_of_key,
)
from online_migrate.operations.shared.index_tree import IndexTree
from online_migrate.operations.shared.steps import need, run_long, run_window
from online_migrate.operations.shared.unfinished_index import drop_invalid, nothing_invalid_left
from online_migrate.plan.model import Name, Phase
from online_migrate.postgres.catalog import IndexInfo, TableInfo
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.names import NAME_BYTES, fits
from online_migrate.postgres.search_path import SearchPath

MANUAL = "https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"
_STORAGE = re.compile(r" WITH \([^)]*\)(?=$| WHERE )")


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
            return (self._build(place, params),)
        tree, below = _tree(place, params), place.partitions()
        nodes = [place, *(place.at(p.names) for p in below if p.kind == "p")]
        builds = [self._build(leaf, _named(params, tree.name_at(leaf))) for leaf in place.leaves()]
        attached = [tree.attach(p) for p in reversed(below)]
        every = [*map(tree.create_only, nodes), *builds, *attached]
        return tuple(replace(s, group=n) for n, s in enumerate(every))

    def rehearsed(self, place: Place, params: CreateIndexParams) -> tuple[Statement, ...]:
        """Of a partitioned table: one statement that the server repeats on each partition."""
        if not place.is_partitioned:
            return super().rehearsed(place, params)
        return (_tree(place, params).create_all(),)

    def _build(self, place: Place, params: CreateIndexParams) -> Statement:
        create = sql.SQL("CREATE {}INDEX CONCURRENTLY {} ON {} {}").format(
            sql.SQL("UNIQUE " if params.unique else ""),
            sql.Identifier(place.fill(params.name)),
            place.sql_table,
            params.as_sql,
        )
        locks = (need(place.schema, place.table, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True),)
        path = SearchPath.ROLE if params.is_plain else SearchPath.PLAN
        return Statement(sql=create, kind=Kind.LONG, locks=locks, path=path)

    def preflight(self, place: Place, params: CreateIndexParams) -> list[Finding]:
        name = place.fill(params.name)
        findings = []
        if not fits(name):
            fact = f"index name {name!r} is longer than {NAME_BYTES} bytes; PostgreSQL would cut it"
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="name_too_long",
                    fact=fact,
                    remedy="give a shorter name",
                    manual=MANUAL,
                )
            )
        if self.state(place, params) is State.CONFLICT:
            findings.append(_conflict(place, name))
        if place.is_partitioned:
            findings += self._conflicts_below(place, params)
        if params.unique and params.is_plain:
            findings += find_duplicates(place, name, params.columns)
        return findings

    def _conflicts_below(self, place: Place, params: CreateIndexParams) -> Iterator[Finding]:
        """Of partitions whose index is not attached yet: something else has its name."""
        tree, connection = _tree(place, params), place.known.connection
        for partition in place.partitions():
            below = place.at(partition.names)
            name = tree.name_at(below)
            is_taken = self.state(below, _named(params, name)) is State.CONFLICT
            if is_taken and not tree.is_attached(connection, partition):
                yield _conflict(below, name)

    def state(self, place: Place, params: CreateIndexParams) -> State:
        name = place.fill(params.name)
        found = read_index(place.known.connection, place.schema, name)
        if found is None:
            return State.ABSENT
        table = place.known.table(place.table)
        index = None if table is None else table.index(name)
        if table is None or index is None or not _is_as_planned(place, table, index, params):
            return State.CONFLICT
        return State.DONE if index.is_valid else State.PARTIAL

    def execute(self, context: Context, params: CreateIndexParams) -> int:
        if not context.place.is_partitioned:
            return self._execute_one(context, params)
        place, tree = context.place, _tree(context.place, params)
        self._create_only(context, tree, place)
        for partition in tree.not_attached(context.work):
            with unless_dropped(place, partition.names):
                below = context.at(partition.names)
                if partition.kind == "p":
                    self._create_only(context, tree, below.place)
                else:
                    self._execute_one(below, _named(params, tree.name_at(below.place)))
        for partition in tree.not_attached(context.work, deepest_first=True):
            with unless_dropped(place, partition.names):
                run_window(context, [tree.attach(partition)])
        tree.ensure_valid(context.work)
        return 0

    def _create_only(self, context: Context, tree: IndexTree, place: Place) -> None:
        if read_index(context.work, place.schema, tree.name_at(place)) is None:
            run_window(context, [tree.create_only(place)])

    def _execute_one(self, context: Context, params: CreateIndexParams) -> int:
        name = context.place.fill(params.name)
        state = self.state(context.place, params)
        if state is State.DONE:
            return 0
        if state is State.PARTIAL:
            drop_invalid(context, name)
        with nothing_invalid_left(context, name):
            try:
                run_long(context, self._build(context.place, params))
            except psycopg.errors.UniqueViolation as error:
                examples = self._examples(context, params) or _detail(context.place, params, error)
                raise VerificationFailed(
                    f"duplicates in {context.place.table} ({', '.join(params.columns or params.keys)})"
                    f" keep {name} from being built: {examples}",
                    remedy="merge or delete these rows, then run the same command again",
                ) from error
        return 0

    def _examples(self, context: Context, params: CreateIndexParams) -> str:
        if not params.is_plain:
            return ""
        try:
            return "; ".join(read_duplicates(context.work, context.place, params.columns))
        except psycopg.errors.QueryCanceled:  # what the build itself has said must do
            return ""

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


def _conflict(place: Place, name: str) -> Finding:
    found = read_index(place.known.connection, place.schema, name)
    fact = f"{name} already exists with another definition: {found[1] if found else 'not an index'}"
    table = place.known.table(place.table)
    index = None if table is None else table.index(name)
    if index is not None and index.is_deferrable:
        fact += ", of a DEFERRABLE constraint: it serves no ON CONFLICT"
    remedy = "rename or drop it, or change the plan's name"
    return Finding(severity=Severity.STOP, code="index_conflict", fact=fact, remedy=remedy, manual=MANUAL)


def _detail(place: Place, params: CreateIndexParams, error: psycopg.Error) -> str:
    """The server's own words, which quote the key."""
    secret = secret_columns(place)
    may_be_shown = not secret or (params.is_plain and not secret & set(params.columns))
    return str(error.diag.message_detail) if may_be_shown else "(the key is not shown)"


def _is_as_planned(place: Place, table: TableInfo, index: IndexInfo, params: CreateIndexParams) -> bool:
    """What the plan says and nothing else: no other order, operator class, collation, predicate, no
    constraint that is deferrable or excludes.  How full its pages are is private.
    """
    if index.is_deferrable or index.is_exclusion or index.is_unique != params.unique:
        return False
    how = _how(index.definition)
    if params.is_plain:
        plain = f"btree ({', '.join(params.columns)})".replace('"', "")
        return how.replace('"', "") == plain and index.columns == tuple(params.columns)
    wanted = definition_on_copy(place.known.connection, table, params.as_sql, is_unique=params.unique)
    return wanted is not None and how == _how(wanted)


def _how(definition: str) -> str:
    """From the access method on."""
    return _STORAGE.sub("", definition.partition(" USING ")[2])
