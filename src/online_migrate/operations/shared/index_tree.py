"""The index of a partitioned table: one of the root, without rows, and one of each partition, attached to it.

Source: PostgreSQL manual, 5.12.2.2 Partition Maintenance, and ALTER INDEX … ATTACH PARTITION.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from online_migrate.errors import VerificationFailed
from online_migrate.operations.contract.base import Kind, Place, Statement
from online_migrate.operations.shared.steps import need
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.names import short_name
from online_migrate.postgres.partitions import Partition
from online_migrate.postgres.search_path import SearchPath

_ATTACHED = """
SELECT FROM pg_inherits h JOIN pg_index x ON x.indexrelid = h.inhrelid
 WHERE h.inhparent = to_regclass(%s) AND x.indrelid = to_regclass(%s)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexTree:
    """The indexes of one step on a partitioned table and on all that is below it."""

    root: Place
    name: str
    """as the plan has it: ``idx_<table>_bot_id``"""
    definition: sql.Composed
    """what follows the table's name in CREATE INDEX"""
    is_unique: bool
    path: SearchPath

    def name_at(self, place: Place) -> str:
        """Of the index there, within 63 bytes; where that cuts it, distinguished by its hash."""
        if place.within is None:
            return place.fill(self.name)
        name = self.name.replace("<table>", place.table)
        return short_name(name if "<table>" in self.name else f"{place.table}_{name}")

    def create_only(self, place: Place) -> Statement:
        """The index of a partitioned table, without those below: it is not valid until all are attached."""
        locks = (need(place.schema, place.table, LockMode.SHARE, is_alone=True),)
        note = "the table itself has no rows"
        return Statement(
            sql=self._create("ONLY ", place), kind=Kind.WINDOW, locks=locks, path=self.path, note=note
        )

    def create_all(self) -> Statement:
        """One statement for the root and all below it, which blocks writers meanwhile: for the rehearsal."""
        return Statement(sql=self._create("", self.root), kind=Kind.WINDOW, path=self.path)

    def _create(self, only: str, place: Place) -> sql.Composed:
        return sql.SQL("CREATE {}INDEX {} ON {}{} {}").format(
            sql.SQL("UNIQUE " if self.is_unique else ""),
            sql.Identifier(self.name_at(place)),
            sql.SQL(only),
            place.sql_table,
            self.definition,
        )

    def attach(self, partition: Partition) -> Statement:
        """The partition's index to that of its parent."""
        parent, child = self.parent_of(partition), self.root.at(partition.names)
        attach = sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(self._index(parent), self._index(child))
        locks = (
            need(parent.schema, self.name_at(parent), LockMode.SHARE_UPDATE_EXCLUSIVE, is_alone=True),
            need(child.schema, self.name_at(child), LockMode.ACCESS_EXCLUSIVE, is_alone=True),
        )
        return Statement(sql=attach, kind=Kind.WINDOW, locks=locks)

    def is_attached(self, connection: Connection, partition: Partition) -> bool:
        """Has the parent's index one of the partition, whatever its name?"""
        parent, child = self.parent_of(partition), self.root.at(partition.names)
        names = [self._index(parent).as_string(None), child.sql_table.as_string(None)]
        return connection.execute(_ATTACHED, names).fetchone() is not None

    def not_attached(self, connection: Connection, *, deepest_first: bool = False) -> Iterator[Partition]:
        """Each partition whose index is not attached, once; read again after each: partitions come and go."""
        seen = set[tuple[str, str]]()
        while True:
            below = self.root.partitions()
            for partition in reversed(below) if deepest_first else below:
                if partition.names not in seen and not self.is_attached(connection, partition):
                    break
            else:
                return
            seen.add(partition.names)
            yield partition

    def ensure_valid(self, connection: Connection) -> None:
        """PostgreSQL makes a parent's index valid only when it attaches the last one below: not if the
        partition whose index was the last was detached instead (validatePartitionedIndex, tablecmds.c).
        """
        index = self._index(self.root)
        row = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [index.as_string(None)]
        ).fetchone()
        if row is not None and not row[0] and not any(self.not_attached(connection)):
            raise VerificationFailed(
                f"index {self.name_at(self.root)} has an index of each partition, but PostgreSQL keeps it"
                " invalid: a partition was detached or dropped before its index was attached",
                remedy=f"drop it with those of its partitions, in a quiet minute (ACCESS EXCLUSIVE, instant):"
                f" DROP INDEX {index.as_string(None)}; then run the same command again, which builds them",
            )

    def parent_of(self, partition: Partition) -> Place:
        is_root = partition.parent == (self.root.schema, self.root.table)
        return self.root if is_root else self.root.at(partition.parent)

    def _index(self, place: Place) -> sql.Identifier:
        return sql.Identifier(place.schema, self.name_at(place))
