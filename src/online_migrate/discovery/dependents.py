"""What depends on a unique that is to be dropped, besides foreign keys: code that names its columns, and
look-ups that it serves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from online_migrate.discovery.statements import read_statements
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.redact import redact

_VIEWS = """
SELECT DISTINCT v.oid::regclass::text
  FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s AND a.attname = ANY (%(columns)s)
 GROUP BY v.oid HAVING count(DISTINCT a.attname) = cardinality(%(columns)s::text[]) ORDER BY 1"""

_FUNCTIONS = """
SELECT p.oid::regprocedure::text, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'online_migrate') AND p.prosrc ILIKE %(table)s
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e') ORDER BY 1"""

_IDENTITY = (
    "SELECT indexrelid::regclass::text FROM pg_index WHERE indexrelid = ANY (%s::oid[]) AND indisreplident"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependent:
    """``is_fatal``: dropping the unique would break it at once, whatever the data are."""

    kind: str
    name: str
    why: str
    is_fatal: bool = False


def read_dependents(
    connection: Connection,
    table: TableInfo,
    columns: Collection[str],
    old: Collection[int],
    added: Collection[str],
    planned: Collection[str] = (),
) -> tuple[Dependent, ...]:
    """What depends on the unique indexes ``old`` (OIDs) over exactly ``columns``; ``added`` are the columns
    that the new one has besides: a statement that names one of them looks up within one owner already.
    ``planned`` are the columns with which indexes begin that the plan builds before.
    """
    return (
        *_identity(connection, old),
        *_upserts_and_look_ups(connection, table, columns, added),
        *_functions(connection, table, columns, added),
        *_views(connection, table, columns),
        *_lost_index(table, columns, old, planned),
    )


def _identity(connection: Connection, old: Collection[int]) -> Iterator[Dependent]:
    """Logical replication finds rows by it (manual, 31.1 "Publication"); without it
    UPDATE fails with 55000.
    """
    for (name,) in connection.execute(_IDENTITY, [list(old)]).fetchall():
        yield Dependent(
            kind="replica identity",
            name=name,
            why="logical replication finds rows by it: every UPDATE and DELETE of a published table would"
            " fail",
            is_fatal=True,
        )


def _upserts_and_look_ups(
    connection: Connection, table: TableInfo, columns: Collection[str], added: Collection[str]
) -> Iterator[Dependent]:
    for seen in read_statements(connection, [table.name]):
        if not _names(table.name, seen.query):
            continue
        name = f"{redact(seen.query)} ({seen.calls} calls)"
        if is_conflict_target(seen.query, columns):
            yield Dependent(kind="statement", name=name, why=_UPSERT)
        elif is_look_up(seen.query, columns, added):
            yield Dependent(kind="statement", name=name, why=_LOOK_UP)


def _functions(
    connection: Connection, table: TableInfo, columns: Collection[str], added: Collection[str]
) -> Iterator[Dependent]:
    for name, body in connection.execute(_FUNCTIONS, {"table": f"%{table.name}%"}).fetchall():
        if not _names(table.name, body):
            continue
        if is_conflict_target(body, columns):
            yield Dependent(kind="function", name=name, why=_UPSERT)
        elif is_look_up(body, columns, added):
            yield Dependent(kind="function", name=name, why=_LOOK_UP)


def _views(connection: Connection, table: TableInfo, columns: Collection[str]) -> Iterator[Dependent]:
    rows = connection.execute(_VIEWS, {"table": table.oid, "columns": list(columns)}).fetchall()
    for (name,) in rows:
        yield Dependent(
            kind="view", name=name, why="it reads these columns; does it expect one row for each value?"
        )


def _lost_index(
    table: TableInfo, columns: Collection[str], old: Collection[int], planned: Collection[str]
) -> Iterator[Dependent]:
    """An index on (bot_id, code) cannot serve a look-up by code alone."""
    left = [i for i in table.indexes if i.oid not in old and i.is_valid and not i.has_predicate]
    first = {*planned, *(i.columns[0] for i in left if i.columns)}
    if not first & set(columns):
        yield Dependent(
            kind="look-ups",
            name=f"by {', '.join(columns)} alone",
            why=f"no other index of {table.name} begins with it: they would scan the table",
        )


_UPSERT = "its ON CONFLICT target is the old unique: it would fail with 42P10"
_LOOK_UP = "it looks up by the old columns alone: it may find a row of each owner"


def is_conflict_target(text: str, columns: Collection[str]) -> bool:
    """Does an ON CONFLICT of it name exactly these columns?"""
    targets = re.findall(r"(?is)\bon\s+conflict\s*\(([^)]*)\)", text)
    return any(
        {c.strip().strip('"').lower() for c in t.split(",")} == {*map(str.lower, columns)} for t in targets
    )


def is_look_up(text: str, columns: Collection[str], added: Collection[str]) -> bool:
    """Does it compare each of these columns with a value, and none of ``added``?"""
    return all(_compares(c, text) for c in columns) and not any(_names(c, text) for c in added)


def _compares(column: str, text: str) -> bool:
    name = rf'(?<![\w"]){re.escape(column)}"?'
    return (
        re.search(
            rf'(?is){name}\s*(?:=|\bin\b)|=\s*(?:\w+\.)?"?{re.escape(column)}(?!\w)|"{re.escape(column)}"\s*=',
            text,
        )
        is not None
    )


def _names(name: str, text: str) -> bool:
    return re.search(rf"(?i)(?<!\w){re.escape(name)}(?!\w)", text) is not None
