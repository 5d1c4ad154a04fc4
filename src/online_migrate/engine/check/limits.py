"""Limits that a copy does not show: they are read from the catalog."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.engine.survey import Survey
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.effects import AddsColumn

MAX_COLUMNS = 1600
"""of a table, the dropped ones included (MaxHeapAttributeNumber)"""
MANUAL = "https://www.postgresql.org/docs/current/limits.html"

_EVENT_TRIGGERS = """
SELECT e.evtname, e.evtevent, p.proname FROM pg_catalog.pg_event_trigger e
  JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
 WHERE e.evtenabled IN ('O', 'A') ORDER BY e.evtname"""

_FAMILIES = """
WITH RECURSIVE family (root, oid) AS (
  SELECT c.oid, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s) AND c.relkind IN ('r', 'p')
  UNION SELECT f.root, i.inhrelid FROM family f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid)
SELECT r.relname, c.relname, c.relnatts::int,
       (SELECT count(*) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attisdropped)::int,
       c.reloftype <> 0 AND c.oid = r.oid, c.relispartition AND c.oid = r.oid
  FROM family f JOIN pg_catalog.pg_class r ON r.oid = f.root JOIN pg_catalog.pg_class c ON c.oid = f.oid
 ORDER BY r.relname, c.relname"""


def check_limits(seen: Survey) -> Iterator[Finding]:
    """Tables that take no further column."""
    added: dict[str, dict[str, None]] = {}
    for change in seen.open_changes:
        table = seen.catalog.table(change.effect.table)
        if (
            isinstance(change.effect, AddsColumn)
            and table is not None
            and change.effect.column not in table.columns
        ):
            added.setdefault(table.name, {})[change.effect.column] = None
    if not added:
        return
    connection = seen.catalog.connection
    rows = connection.execute(_FAMILIES, {"schema": seen.plan.schema, "names": list(added)}).fetchall()
    for root, name, columns, dropped, is_typed, is_partition in rows:
        if columns + len(added[root]) > MAX_COLUMNS:
            along = "" if name == root else f", which gets each column of {root},"
            fact = (
                f"{name}{along} has {columns} columns, {dropped} dropped ones among them:"
                f" with {len(added[root])} more it exceeds the limit of {MAX_COLUMNS}"
            )
            yield _stop(
                "too_many_columns", root, fact, "only a new table has room for more: dropped columns count"
            )
        if is_typed:
            fact = f"{name} is a typed table (CREATE TABLE … OF): no column can be added to it"
            yield _stop(
                "typed_table", root, fact, f"ALTER TYPE … ADD ATTRIBUTE, or ALTER TABLE {name} NOT OF"
            )
        table = seen.catalog.table(root)
        above = () if table is None else table.ancestors
        if is_partition and not any(ancestor in added for _, ancestor in above):
            fact = f"{name} is a partition: no column can be added to it alone"
            yield _stop("column_of_partition", root, fact, "add the column to its root")


def list_event_triggers(seen: Survey) -> Iterator[Finding]:
    """Those that fire at the plan's DDL: on the copies they see other names."""
    if not seen.open_changes:
        return
    for name, event, function in seen.catalog.connection.execute(_EVENT_TRIGGERS).fetchall():
        yield Finding(
            severity=Severity.INFO,
            code="event_trigger",
            fact=f"event trigger {name} calls {function}() at {event}; the rehearsal fired it for copies",
            remedy="read its function: what it decides by the name of a table or a schema was not rehearsed",
        )


def _stop(code: str, table: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.STOP, code=code, fact=fact, remedy=remedy, table=table, manual=MANUAL)
