"""drop_index: DROP INDEX CONCURRENTLY, watched; what still needs the index is found before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from psycopg import sql

from online_migrate.discovery.dependents import read_dependents
from online_migrate.findings import Finding, Severity
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
from online_migrate.operations.contract.effects import DropsIndex, Effect
from online_migrate.operations.schema_before import TableThen, schema_before
from online_migrate.operations.shared.index_names import drop_concurrently, read_index
from online_migrate.operations.shared.key_look_ups import serving
from online_migrate.operations.shared.steps import need, run_long, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import IndexInfo, TableInfo
from online_migrate.postgres.locks import LockMode

MANUAL = "https://www.postgresql.org/docs/current/sql-dropindex.html"
RECENT_DAYS = 30
"""a scan within so many days counts as use: what runs once a month is seen"""

_TREE = """
SELECT n.nspname, c.relname FROM pg_partition_tree(to_regclass(%s)) t JOIN pg_class c ON c.oid = t.relid
  JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY c.oid"""
_USE = """
SELECT coalesce(sum(s.idx_scan), 0)::int8, max((to_jsonb(s) ->> 'last_idx_scan')::timestamptz(0))::text,
       CASE WHEN current_setting('server_version_num')::int < 160000 THEN true
         ELSE max((to_jsonb(s) ->> 'last_idx_scan')::timestamptz) > now() - make_interval(days => %(days)s)
       END,
       (SELECT d.stats_reset::timestamptz(0)::text FROM pg_stat_database d
         WHERE d.datname = current_database())
  FROM pg_stat_all_indexes s
 WHERE s.indexrelid = %(oid)s OR s.indexrelid IN (SELECT t.relid FROM pg_partition_tree(%(oid)s) t)"""
"""last_idx_scan exists from 16 on"""
_TRAITS = """
SELECT x.indisclustered, x.indisreplident, p.relname
  FROM pg_index x LEFT JOIN pg_inherits h ON h.inhrelid = x.indexrelid
  LEFT JOIN pg_class p ON p.oid = h.inhparent WHERE x.indexrelid = %s"""


class DropIndexParams(TableParams):
    """The index that is dropped."""

    name: str
    """name of the index; <table> stands for the name of the table"""


class DropIndex(Operation[DropIndexParams]):
    """Drop an index with DROP INDEX CONCURRENTLY, while the application reads and writes.

    What it does: the index is marked invalid, then dead, then dropped. Before the second and the third step
    PostgreSQL waits for every transaction that has used the table; blockers are reported meanwhile. `check`
    refuses to drop what the database still needs, and warns of an index that was scanned lately.

    Locks: SHARE UPDATE EXCLUSIVE on the table for as long as the drop takes, which blocks no reads or writes;
    at its end ACCESS EXCLUSIVE on the index, which no session uses any more.

    Partitioned tables: PostgreSQL cannot drop the index of a root concurrently. It is dropped, with those of
    all partitions, in one lock window: ACCESS EXCLUSIVE on the root, its partitions and all these indexes,
    instant.

    On a crash: PostgreSQL leaves an INVALID index, which serves no query. The next run drops it.

    How to undo: create_index with the definition that `check` shows. A unique one needs rows without
    duplicates.
    """

    name = "drop_index"
    phase = Phase.CONTRACT
    summary = "drop an index CONCURRENTLY"
    descendants = Descendants.ANY
    Params: ClassVar[type[DropIndexParams]] = DropIndexParams

    def title(self, params: DropIndexParams) -> str:
        return f"drop_index {params.name}"

    def effects(self, place: Place, params: DropIndexParams) -> tuple[Effect, ...]:
        return (DropsIndex(table=place.table, name=place.fill(params.name)),)

    def statements(self, place: Place, params: DropIndexParams) -> tuple[Statement, ...]:
        name = place.fill(params.name)
        if not place.is_partitioned:
            return (drop_concurrently(place, name),)
        index = sql.Identifier(place.schema, name)
        tree = place.known.connection.execute(_TREE, [index.as_string(None)]).fetchall()
        names = (*place.family, *((schema, index_name) for schema, index_name in tree))
        locks = tuple(need(*each, LockMode.ACCESS_EXCLUSIVE) for each in names)
        drop = sql.SQL("DROP INDEX IF EXISTS {}").format(index)
        note = "the index of a partitioned table cannot be dropped concurrently"
        return (Statement(sql=drop, kind=Kind.WINDOW, locks=locks, note=note),)

    def preflight(self, place: Place, params: DropIndexParams) -> list[Finding]:
        name = place.fill(params.name)
        table, state = place.known.table(place.table), self.state(place, params)
        then = schema_before(place).table(place.table)
        if table is None or then is None:
            return []
        if state is State.CONFLICT:
            return [_conflict(place, name)]
        if state is State.DONE:
            return [] if name in then.indexes else [_missing(place, name)]
        index = table.index(name)
        assert index is not None  # state has found it
        if not index.is_valid and index.constraint is None:
            return []  # it serves no query: what is left is to drop it
        return [*self._needed(place, table, index, then), *self._used(place, index)]

    def _needed(self, place: Place, table: TableInfo, index: IndexInfo, then: TableThen) -> Iterator[Finding]:
        """What the server would refuse, and what would fail or become slow afterwards."""
        name, connection = index.name, place.known.connection
        row = connection.execute(_TRAITS, [index.oid]).fetchone()
        assert row is not None  # it has just been found
        is_clustered, is_identity, parent = row
        if parent is not None:
            fact = f"{name} belongs to index {parent} of the table that {place.table} is a partition of"
            yield _finding(
                Severity.STOP, "index_of_parent", fact, f"drop {parent}, which drops {name} as well"
            )
        if index.constraint is not None:
            fact = f"{name} is the index of constraint {index.constraint} of {place.table}"
            remedy = "drop the constraint, which drops its index, or take the step out of the plan"
            yield _finding(Severity.STOP, "index_of_constraint", fact, remedy)
        for key in place.known.referencing(table):
            if key.index_oid == index.oid and index.constraint is None:
                fact = f"foreign key {key.name} of {key.table} references the unique index {name}"
                remedy = f"let {key.table} reference the primary key, or drop that foreign key first"
                yield _finding(Severity.STOP, "foreign_key_on_unique", fact, remedy)
        for own in then.keys:
            if serving(then, own.columns) == {name}:
                columns = ", ".join(own.columns)
                fact = (
                    f"{name} is the last index that finds the rows of foreign key {own.name} ({columns}):"
                    f" each row that is deleted from {own.ref_table} would scan the whole of {place.table}"
                )
                remedy = (
                    f"build another index on ({columns}) in an earlier step, or drop the foreign key first"
                )
                yield _finding(Severity.STOP, "last_index_of_foreign_key", fact, remedy)
        if is_identity:
            fact = (
                f"{name} is the replica identity of {place.table}: without it every UPDATE and DELETE of a"
                " published table fails (55000)"
            )
            remedy = (
                "ALTER TABLE … REPLICA IDENTITY USING INDEX another one, DEFAULT or FULL; then check again"
            )
            yield _finding(Severity.STOP, "index_is_replica_identity", fact, remedy)
        if is_clustered:
            fact = f"{place.table} is clustered on {name}: CLUSTER without an index would fail (42704)"
            yield _finding(Severity.WARN, "index_clustered", fact, "cluster it on another index, if at all")
        if index.is_unique and index.constraint is None:
            yield from self._unique_lost(place, table, index, then)

    def _unique_lost(
        self, place: Place, table: TableInfo, index: IndexInfo, then: TableThen
    ) -> Iterator[Finding]:
        """No other unique refuses the same duplicates."""
        columns = set(index.columns)
        others = (i for i in then.indexes.values() if i.is_unique and i.name != index.name)
        if any(set(i.columns) == columns and None not in columns and not i.has_predicate for i in others):
            return
        fact = f"{index.name} is unique: once it is dropped, nothing refuses the duplicates that it refuses"
        yield _finding(Severity.WARN, "unique_lost", fact, "see that the application may write duplicates")
        named = [c for c in index.columns if c is not None]
        for dependent in read_dependents(place.known.connection, table, named, [index.oid], ()):
            if dependent.is_upsert:
                fact = (
                    f"{dependent.kind} {dependent.name} needs {index.name} for ON CONFLICT (42P10 without it)"
                )
                yield _finding(Severity.WARN, "upsert_needs_index", fact, "change it before this stage")

    def _used(self, place: Place, index: IndexInfo) -> Iterator[Finding]:
        """What the statistics say of it, and how it is built again."""
        asked = {"oid": index.oid, "days": RECENT_DAYS}
        row = place.known.connection.execute(_USE, asked).fetchone()
        assert row is not None  # an aggregate without GROUP BY has one row
        scans, last, is_recent, since = row
        used = (
            f"{scans} scans since {since or 'the statistics began'}{f', the last at {last}' if last else ''}"
        )
        if scans and is_recent:
            fact = f"{index.name} is in use: {used}"
            remedy = "find the statements that use it, and see that another index serves them"
            yield _finding(Severity.WARN, "index_in_use", fact, remedy)
        fact = f"{index.name}, {index.bytes} bytes, is dropped: {used}; standbys count their own scans"
        again = index.definition.replace("INDEX ", "INDEX CONCURRENTLY ", 1)
        if place.is_partitioned:
            again = f"a create_index step as {index.definition}"
        yield _finding(Severity.INFO, "index_dropped", fact, f"note it for a rollback: {again}")

    def state(self, place: Place, params: DropIndexParams) -> State:
        """Partial where an interrupted drop, or build, has left it invalid."""
        name, table = place.fill(params.name), place.known.table(place.table)
        index = None if table is None else table.index(name)
        if index is not None:
            return State.ABSENT if index.is_valid else State.PARTIAL
        is_other = read_index(place.known.connection, place.schema, name) is not None
        return State.CONFLICT if is_other else State.DONE

    def execute(self, context: Context, params: DropIndexParams) -> int:
        if self.state(context.place, params) not in (State.ABSENT, State.PARTIAL):
            return 0
        statements = self.statements(context.place, params)
        if context.place.is_partitioned:
            run_window(context, statements)
        else:
            run_long(context, statements[0])
        return 0

    def verify(self, place: Place, params: DropIndexParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = f"{place.fill(params.name)} exists again, on {place.table} or as something else"
        remedy = "an application that creates its schema at start creates it again: fix that, then drop it"
        return [_finding(Severity.STOP, "index_back", fact, remedy)]


def _conflict(place: Place, name: str) -> Finding:
    found = read_index(place.known.connection, place.schema, name)
    fact = f"{name} is no index of {place.table}: {found[1] if found else 'it was dropped meanwhile'}"
    return _finding(Severity.STOP, "index_conflict", fact, "correct `table` or `name`")


def _missing(place: Place, name: str) -> Finding:
    fact = f"{place.table} has no index {name}: there is nothing to drop"
    return _finding(Severity.WARN, "index_missing", fact, "correct `name`, or take the step out of the plan")


def _finding(severity: Severity, code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=severity, code=code, fact=fact, remedy=remedy, manual=MANUAL)
