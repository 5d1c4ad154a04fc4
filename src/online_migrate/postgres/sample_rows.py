"""Fills a stand-in with rows of its table: a sample, the widest, the longest, least and greatest keys.

Each read is short: a large table is read by a sample of its pages.  A row is chosen by its place (ctid), so
none is copied twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import psycopg
from psycopg import sql

from online_migrate.postgres import stand_ins
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.stand_ins import Missing, StandIns

SMALL_PAGES: Final = 1024
"""8 MB: up to here a read of the whole table is made for its extremes"""
WHOLE_PAGES: Final = 32
"""256 kB: up to here every row is copied, if they are no more than WHOLE_ROWS"""
WHOLE_ROWS: Final = 2_000
SAMPLE_ROWS: Final = 200
EXTREMES: Final = 5
READ_TIMEOUT_MS: Final = 300
NARROW_COLUMNS: Final = 200
"""fewer columns hardly fill a page (8160 bytes) after TOAST: a value out of line takes 18 or 20 bytes"""

_WIDTHS = """
SELECT a.attname, a.attstorage::text FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"""


def copy_rows(
    copies: StandIns, table: TableInfo, keys: Iterable[Sequence[str]], *, wanted: Iterable[sql.Composed] = ()
) -> None:
    """Copy rows of ``table``.

    ``keys`` are columns of indexes that exist or are planned; ``wanted`` are queries for further places.
    """
    if table.kind != "r" or table.name not in copies.shapes:
        return
    places: dict[str, None] = {}
    for query in (*_choices(copies, table, keys), *wanted):
        places.update(dict.fromkeys(_read(copies, table, query)))
    insert_rows(copies, table, list(places))


def insert_rows(copies: StandIns, table: TableInfo, places: list[str]) -> None:
    """Copy the rows at these places; a row that a unique refuses is left out."""
    columns = sql.SQL(", ").join(map(sql.Identifier, copies.shapes[table.name].columns))
    if not places or not copies.shapes[table.name].columns:
        return
    error = copies.attempt(
        sql.SQL(
            "INSERT INTO {copy} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM ONLY {table}"
            " WHERE ctid OPERATOR(pg_catalog.=) ANY ({places}::pg_catalog.tid[]) ON CONFLICT DO NOTHING"
        ).format(
            copy=copies.name(table.name),
            columns=columns,
            table=sql.Identifier(table.schema, table.name),
            places=sql.Literal(places),
        )
    )
    if error is not None:
        copies.missing.append(Missing(table=table.name, what="its rows", error=error))


def referenced_places(
    copies: StandIns, *, child: str, column: str, parent: TableInfo, key: str
) -> sql.Composed:
    """The query for the parent's rows that rows of the child's copy reference."""
    return sql.SQL(
        "SELECT ctid::text FROM ONLY {parent} WHERE {key} = ANY (ARRAY("
        "SELECT DISTINCT {column} FROM {child} WHERE {column} IS NOT NULL LIMIT {rows}))"
    ).format(
        parent=sql.Identifier(parent.schema, parent.name),
        key=sql.Identifier(key),
        column=sql.Identifier(column),
        child=copies.name(child),
        rows=sql.Literal(WHOLE_ROWS),
    )


def read_places(copies: StandIns, table: TableInfo, query: sql.Composed) -> list[str]:
    """The places that a query returns; what it refuses, or takes too long, is noted as missing."""
    return _read(copies, table, query)


def _choices(copies: StandIns, table: TableInfo, keys: Iterable[Sequence[str]]) -> list[sql.Composed]:
    """The queries for places of rows."""
    source = sql.SQL("ONLY {}").format(sql.Identifier(table.schema, table.name))
    if table.pages <= WHOLE_PAGES:
        found = [sql.SQL("SELECT ctid::text FROM {} LIMIT {}").format(source, sql.Literal(WHOLE_ROWS))]
        if table.rows_estimate < WHOLE_ROWS:
            return found
    share = min(100.0, 100.0 * WHOLE_PAGES / max(table.pages, 1))
    sample = sql.SQL("{} TABLESAMPLE SYSTEM ({})").format(source, sql.Literal(share))
    found = [sql.SQL("SELECT ctid::text FROM {} LIMIT {}").format(sample, sql.Literal(SAMPLE_ROWS))]
    if table.pages > SMALL_PAGES:
        share = 100.0 * SMALL_PAGES / table.pages
        source = sql.SQL("{} TABLESAMPLE SYSTEM ({})").format(source, sql.Literal(share))
    for key in dict.fromkeys(tuple(c for c in k if c in table.columns) for k in keys):
        if key:
            found.append(_longest(source, [_bytes(c) for c in key]))
    leading = dict.fromkeys(
        str(i.columns[0]) for i in table.indexes if i.method == "btree" and i.columns[0] in table.columns
    )
    for column in leading:
        found += [_extreme(table, column, order) for order in ("ASC", "DESC")]
    if len(table.columns) > NARROW_COLUMNS:
        found.append(_longest(source, _widths(copies, table)))
    return found


def _longest(source: sql.Composed, widths: list[sql.Composable]) -> sql.Composed:
    return sql.SQL("SELECT ctid::text FROM {} ORDER BY {} DESC LIMIT {}").format(
        source, sql.SQL(" + ").join(widths), sql.Literal(EXTREMES)
    )


def _extreme(table: TableInfo, column: str, order: str) -> sql.Composed:
    return sql.SQL(
        "SELECT ctid::text FROM ONLY {table} WHERE {column} IS NOT NULL ORDER BY {column} {order} LIMIT 1"
    ).format(
        table=sql.Identifier(table.schema, table.name), column=sql.Identifier(column), order=sql.SQL(order)
    )


def _bytes(column: str) -> sql.Composed:
    """As stored: of a value out of line, its compressed length, which is not read for it."""
    return sql.SQL("coalesce(pg_catalog.pg_column_size({}), 0)").format(sql.Identifier(column))


def _widths(copies: StandIns, table: TableInfo) -> list[sql.Composable]:
    """Each column's share of the row in its page: what can be stored out of line takes a pointer there."""
    rows = copies.connection.execute(_WIDTHS, [table.oid]).fetchall()
    return [
        _bytes(name) if storage == "p" else sql.SQL("least({}, 20)").format(_bytes(name))
        for name, storage in rows
    ]


def _read(copies: StandIns, table: TableInfo, query: sql.Composed) -> list[str]:
    connection = copies.connection
    copies.ensure_time()
    try:
        with connection.transaction():
            cursor = connection.execute(
                sql.SQL("SET LOCAL statement_timeout = {}; {}; SET LOCAL statement_timeout = {}").format(
                    sql.Literal(READ_TIMEOUT_MS), query, sql.Literal(stand_ins.STATEMENT_TIMEOUT_MS)
                )
            )
            cursor.nextset()
            return [str(row[0]) for row in cursor.fetchall()]
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.ProgrammingError) as error:
        copies.missing.append(Missing(table=table.name, what="some of its rows", error=error))
        return []
