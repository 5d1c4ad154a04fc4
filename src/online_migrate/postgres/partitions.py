"""What is below a partitioned table: read from the catalog, without a lock on any of them.

Source: PostgreSQL manual, 5.12 Table Partitioning, and 53.27 pg_inherits.
"""

from __future__ import annotations

from dataclasses import dataclass

from online_migrate.postgres.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A table below a partitioned one, on any level."""

    schema: str
    name: str
    kind: str
    """r table, p partitioned itself, f foreign table"""
    parent: tuple[str, str]
    """(schema, name) of the table that it is a partition of"""

    @property
    def names(self) -> tuple[str, str]:
        """(schema, name)"""
        return (self.schema, self.name)


_BELOW = """
WITH RECURSIVE below (oid, parent, level) AS (
  SELECT i.inhrelid, i.inhparent, 1 FROM pg_inherits i WHERE i.inhparent = to_regclass(%s)
  UNION ALL SELECT i.inhrelid, i.inhparent, level + 1
    FROM pg_inherits i JOIN below ON i.inhparent = below.oid)
SELECT n.nspname, c.relname, c.relkind::text, pn.nspname, p.relname
  FROM below JOIN pg_class c ON c.oid = below.oid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class p ON p.oid = below.parent JOIN pg_namespace pn ON pn.oid = p.relnamespace
 WHERE c.relispartition ORDER BY level, n.nspname, c.relname"""

_LEAVES = """
WITH RECURSIVE below (root, oid) AS (
  SELECT c.relname, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind = 'p' AND n.nspname = %(schema)s
  UNION ALL SELECT below.root, i.inhrelid FROM pg_inherits i JOIN below ON i.inhparent = below.oid)
SELECT below.root, n.nspname, c.relname, c.relkind = 'r'
  FROM below JOIN pg_class c ON c.oid = below.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') ORDER BY below.root, n.nspname <> %(schema)s, n.nspname, c.relname"""


def read_partitions(connection: Connection, table: str) -> tuple[Partition, ...]:
    """The partitions of ``table`` (quoted, with its schema), on every level; each after its parent."""
    rows = connection.execute(_BELOW, [table]).fetchall()
    return tuple(Partition(schema=r[0], name=r[1], kind=r[2], parent=(r[3], r[4])) for r in rows)


def read_leaves(connection: Connection, schema: str) -> dict[str, tuple[str, ...]]:
    """Of each partitioned table of the schema, the partitions that have rows, or none; see
    :func:`partition_text`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for root, leaf_schema, name, has_rows in connection.execute(_LEAVES, {"schema": schema}).fetchall():
        leaves = (partition_text(schema, leaf_schema, name),) if has_rows else ()
        found[root] = (*found.get(root, ()), *leaves)
    return found


def partition_text(schema: str, leaf_schema: str, name: str) -> str:
    """The partition's name; with its schema where that is not ``schema``, or the name has a dot."""
    return name if leaf_schema == schema and "." not in name else f"{leaf_schema}.{name}"


def partition_names(schema: str, text: str) -> tuple[str, str]:
    """(schema, name) of what :func:`partition_text` has made."""
    before, dot, name = text.partition(".")
    return (before, name) if dot else (schema, text)
