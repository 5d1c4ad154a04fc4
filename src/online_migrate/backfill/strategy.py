"""How a table is to be walked: stripes and chunk, from what is measured on the table, and the reason in words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from psycopg import sql

from online_migrate.backfill.chunks import Walk
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection

MOST_STRIPES = 16
"""of 55 rows a page: 16 stripes took 7.2 s, 32 took 10.4 s for 3 MB less of table (postgres-facts, measured)"""
SMALL_PAGES = 8
"""64 KiB: a table that may as well double is walked once instead of 16 times"""
CHUNK_PAGES = 8192
"""64 MiB: the way back to a page lasts longer than the queries of an application (10 % heap-only with 256 pages, 81 % with 8,192)"""
CHUNK_SHARE_OF_BUFFERS = 0.25
"""of shared_buffers, so that a chunk's pages are still in memory when they are visited again"""
SNAPSHOT_AGES = 2.0
"""ages of the oldest snapshot seen: a page that is visited again after so long finds its dead rows prunable"""
SAMPLED_PLACES = 4
SAMPLED_PAGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """``pass_name`` is interleaved or sequential."""

    pass_name: str
    walk: Walk
    rows_per_page: float
    why: str


def index_with(table: TableInfo, column: str) -> str | None:
    """The name of an index that holds the column, be it as key, included, or in an expression or predicate.

    Not one that allows heap-only updates all the same, see :attr:`IndexInfo.is_summarizing`.
    """
    word = re.compile(rf"\b{re.escape(column)}\b")
    for index in table.indexes:
        if index.is_summarizing:
            continue
        if (
            column in index.columns
            or column in index.included
            or word.search(index.definition.partition(" USING ")[2])
        ):
            return index.name
    return None


def decide_strategy(connection: Connection, table: TableInfo, column: str) -> Strategy:
    """Measure rows per page and choose."""
    pages = read_pages(connection, table)
    rows_per_page = _measure_rows_per_page(connection, table, pages)
    index = index_with(table, column)
    if index is not None:
        walk = Walk(pages_total=pages, chunk_pages=max(pages, 1), stripes=1)
        why = f"index {index} holds {column}: no heap-only updates, so one stripe with vacuum rounds"
        return Strategy(pass_name="sequential", walk=walk, rows_per_page=rows_per_page, why=why)
    chunk = min(CHUNK_PAGES, most_chunk_pages(connection))
    stripes = 1 if pages <= SMALL_PAGES else max(min(MOST_STRIPES, int(rows_per_page)), 1)
    if pages <= SMALL_PAGES:
        why = f"{pages} pages: walked once"
    else:
        why = f"no index holds {column}: heap-only updates in {stripes} stripes ({rows_per_page:.0f} rows a page), chunks of {chunk} pages"
    return Strategy(
        pass_name="interleaved",
        walk=Walk(pages_total=pages, chunk_pages=chunk, stripes=stripes),
        rows_per_page=rows_per_page,
        why=why,
    )


def most_chunk_pages(connection: Connection) -> int:
    """The longest chunk that stays in memory, in pages."""
    row = connection.execute(
        "SELECT pg_size_bytes(current_setting('shared_buffers')) / current_setting('block_size')::int"
    ).fetchone()
    buffers = 16_384 if row is None else int(row[0])
    return max(int(buffers * CHUNK_SHARE_OF_BUFFERS), 1)


def decide_chunk_pages(*, page_s: float, oldest_s: float, most: int) -> int:
    """So many pages that the way back takes twice the age of the oldest snapshot seen, pauses included; pure.

    ``page_s`` is what one visit of a page takes.  Never below the default, never above ``most``.
    """
    wanted = math.ceil(SNAPSHOT_AGES * oldest_s / max(page_s, 1e-9))
    return max(min(max(CHUNK_PAGES, wanted), most), 1)


def read_pages(connection: Connection, table: TableInfo) -> int:
    """The table's length now, in pages."""
    row = connection.execute(
        "SELECT pg_relation_size(%s::oid) / current_setting('block_size')::int", [table.oid]
    ).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def _measure_rows_per_page(connection: Connection, table: TableInfo, pages: int) -> float:
    """Counted in a few places of the table."""
    if pages == 0:
        return 1.0
    counted = seen = 0
    for place in range(SAMPLED_PLACES):
        first = pages * place // SAMPLED_PLACES
        end = min(first + SAMPLED_PAGES, pages)
        row = connection.execute(
            sql.SQL("SELECT count(*) FROM ONLY {} WHERE ctid >= {} AND ctid < {}").format(
                sql.Identifier(table.schema, table.name),
                sql.Literal(f"({first},0)"),
                sql.Literal(f"({end},0)"),
            )
        ).fetchone()
        counted += 0 if row is None else int(row[0])
        seen += end - first
    return max(counted / max(seen, 1), 1.0)
