"""What the checks of a backfill read beside its column: its expression, owners, keys, partitions."""

from __future__ import annotations

import re

from online_migrate.backfill.hazards.triggers import skipped_key_hazard
from online_migrate.findings import Finding
from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import AddsForeignKey, FillsColumn
from online_migrate.operations.schema_before import schema_before
from online_migrate.postgres.catalog import TableInfo

_SUBQUERY = re.compile(r"\b(select|table|values|with)\b", re.IGNORECASE)
_CALL = re.compile(r"([\w\"$.]+)\s*\(")
_NO_CALLS = {
    "and",
    "case",
    "coalesce",
    "else",
    "greatest",
    "in",
    "least",
    "not",
    "nullif",
    "or",
    "then",
    "when",
}
"""keywords that may precede a parenthesis"""


def is_of_the_row(place: Place, value: str) -> bool:
    """Whether the expression reads no table.  Of functions, only PostgreSQL's own immutable ones are known
    not to.
    """
    if _SUBQUERY.search(value):
        return False
    called = {name.lower() for name in _CALL.findall(value)} - _NO_CALLS
    if not called:
        return True
    if place.catalog is None:
        return False
    rows = place.catalog.connection.execute(
        """SELECT p.proname FROM pg_proc p WHERE p.proname = ANY (%s)
            GROUP BY p.proname
           HAVING bool_and(p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 'i')""",
        [sorted(called)],
    ).fetchall()
    return called == {name for (name,) in rows}


def owner_tables(place: Place, table: TableInfo, column: str) -> list[str]:
    """The tables of the plan's schema that the column references, by keys of the catalog or of the plan."""
    planned = [
        c.effect.ref_table
        for c in place.effects.on(table.name)
        if isinstance(c.effect, AddsForeignKey) and c.effect.column == column
    ]
    return planned + [
        str(k.ref_table)
        for k in table.foreign_keys
        if k.columns == (column,) and k.ref_schema == place.schema
    ]


def skipped_keys(place: Place, column: str) -> list[Finding]:
    """A foreign key that an earlier step adds exists by then; those of the catalog
    are a hazard of their own.
    """
    then = schema_before(place).table(place.table)
    keys = [] if then is None else [k for k in then.keys if k.added_by is not None and column in k.columns]
    if not keys:
        return []
    return [
        skipped_key_hazard(f"the foreign key {keys[0].name} of {place.table}, which an earlier step adds")
    ]


def leaves_left_out(place: Place, column: str) -> tuple[str, list[str]]:
    """Of a leaf partition: its root, and that root's other leaves in which the plan backfills the column
    nowhere.
    """
    info = place.known.table(place.table)
    if info is None or (info.kind != "p" and not info.ancestors):
        return "", []
    filled = [
        c.effect.table
        for c in place.effects.changes
        if isinstance(c.effect, FillsColumn) and c.effect.is_backfill and c.effect.column == column
    ]
    rows = place.known.connection.execute(
        """SELECT r.relname, l.relname FROM pg_partition_root(%(table)s::regclass) root (oid)
             JOIN pg_class r ON r.oid = root.oid CROSS JOIN pg_partition_tree(root.oid) t
             JOIN pg_class l ON l.oid = t.relid JOIN pg_namespace n ON n.oid = l.relnamespace
            WHERE t.isleaf AND l.relkind = 'r' AND NOT (n.nspname = %(schema)s
              AND l.relname = ANY (%(filled)s))
            ORDER BY l.relname""",
        {"table": place.sql_table.as_string(None), "schema": place.schema, "filled": filled},
    ).fetchall()
    return (rows[0][0] if rows else ""), [name for _, name in rows]
