"""Publications of logical replication that carry a table's updates."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection

_QUERY = """
WITH published AS (
    SELECT p.pubname, p.pubupdate FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
      JOIN pg_namespace n ON n.nspname = t.schemaname
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
     WHERE c.oid IN (SELECT %(oid)s UNION SELECT pg_partition_ancestors(%(oid)s)))
SELECT ARRAY(SELECT pubname FROM published ORDER BY 1),
       ARRAY(SELECT p.pubname FROM pg_publication p WHERE p.puballtables ORDER BY 1),
       ARRAY(SELECT pubname FROM published WHERE pubupdate ORDER BY 1),
       c.relreplident <> 'f' AND NOT EXISTS (
           SELECT FROM pg_index i WHERE i.indrelid = c.oid
              AND (c.relreplident = 'd' AND i.indisprimary AND i.indimmediate
                   OR c.relreplident = 'i' AND i.indisreplident))
  FROM pg_class c WHERE c.oid = %(oid)s"""
"""By the catalogs, not by a cast to regclass, which asks USAGE on the schema of every published table."""


def read_publication_hazards(connection: Connection, table: TableInfo) -> Iterator[Finding]:
    """A table that is published without a replica identity cannot be updated; a published one concerns its
    subscribers.
    """
    if connection.execute("SELECT FROM pg_publication LIMIT 1").fetchone() is None:
        return  # to plan the query takes the server longer than all else that is asked of a table
    row = connection.execute(_QUERY, {"oid": table.oid}).fetchone()
    assert row is not None  # the table was just read
    names, for_all, of_updates, lacks_identity = row
    if of_updates and lacks_identity:
        yield Finding(
            severity=Severity.STOP,
            code="replica_identity",
            fact=f"{table.name} is published by {', '.join(of_updates)} and has no replica identity:"
            " PostgreSQL refuses every UPDATE of it (55000)",
            remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY …, or remove it from the publication",
        )
    elif names:
        yield Finding(
            severity=Severity.WARN,
            code="published",
            fact=f"{table.name} is published by {', '.join(names)}:"
            " a subscriber stops at a column that it does not have",
            remedy="add the column at the subscribers first",
        )
    if for_all:
        yield Finding(
            severity=Severity.WARN,
            code="published_for_all_tables",
            fact=f"publications FOR ALL TABLES also publish our journal: {', '.join(for_all)}",
            remedy="create schema online_migrate with its tables at the subscribers first;"
            " otherwise they stop at the first row of the journal",
        )
