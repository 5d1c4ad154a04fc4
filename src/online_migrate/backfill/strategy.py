"""How a table is walked: stripes and chunk, from what is measured on the table, and the reason in words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from psycopg import sql

from online_migrate.backfill.chunks import Walk
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection

MOST_STRIPES = 16
"""at 55 rows a page, 16 stripes took 7.2 s, and 32 took 10.4 s for a table 3 MB smaller (measured,
postgres-facts)"""
SMALL_PAGES = 8
"""64 KiB: it does not matter if such a table doubles, so it is walked once instead of 16 times"""
CHUNK_PAGES = 8192
"""64 MiB: the revisit interval of a page is longer than an application's queries (heap-only updates: 10 %
with 256 pages, 81 % with 8,192)"""
CHUNK_SHARE_OF_BUFFERS = 0.25
"""of shared_buffers, so that a chunk's pages are still in memory at their next visit"""
SNAPSHOT_AGES = 2.0
"""times the age of the oldest snapshot seen: after this revisit interval the dead rows of a page can be
pruned"""
SAMPLED_PLACES = 4
SAMPLED_PAGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a table is walked; ``pass_name`` is interleaved or sequential."""

    pass_name: str
    walk: Walk
    rows_per_page: float
    reason: str


def index_with(table: TableInfo, column: str) -> str | None:
    """The name of an index that contains the column: as a key, included, or in an expression or predicate.

    An index that still allows heap-only updates does not count, see :attr:`IndexInfo.is_summarizing`.
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
    """Measure the rows on a page, and choose pass, stripes and chunk."""
    pages = read_pages(connection, table)
    rows_per_page = _measure_rows_per_page(connection, table, pages)
    index = index_with(table, column)
    if index is not None:
        walk = Walk(pages_total=pages, chunk_pages=max(pages, 1), stripes=1)
        reason = f"index {index} contains {column}: no heap-only updates, so one stripe with vacuum rounds"
        return Strategy(pass_name="sequential", walk=walk, rows_per_page=rows_per_page, reason=reason)
    chunk = min(CHUNK_PAGES, most_chunk_pages(connection))
    stripes = 1 if pages <= SMALL_PAGES else max(min(MOST_STRIPES, int(rows_per_page)), 1)
    if pages <= SMALL_PAGES:
        reason = f"the table has {pages} pages, so one stripe"
    else:
        reason = (
            f"no index contains {column}: heap-only updates in {stripes} stripes"
            f" ({rows_per_page:.0f} rows on a page), chunks of {chunk} pages"
        )
    return Strategy(
        pass_name="interleaved",
        walk=Walk(pages_total=pages, chunk_pages=chunk, stripes=stripes),
        rows_per_page=rows_per_page,
        reason=reason,
    )


def most_chunk_pages(connection: Connection) -> int:
    """The longest chunk that fits into its share of shared_buffers, in pages."""
    row = connection.execute(
        "SELECT pg_size_bytes(current_setting('shared_buffers')) / current_setting('block_size')::int"
    ).fetchone()
    buffers = 16_384 if row is None else int(row[0])
    return max(int(buffers * CHUNK_SHARE_OF_BUFFERS), 1)


def decide_chunk_pages(*, page_s: float, oldest_s: float, most: int) -> int:
    """The chunk whose revisit interval, pauses included, is twice the age of the oldest snapshot seen.  Pure.

    ``page_s`` is the time of one visit of a page.  Never below the default, never above ``most``.
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
    """The average of a few places of the table."""
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
