"""The position of a backfill and its next batch: chunk, stripe, slice.  Pure.

A chunk is a range of pages that is walked ``stripes`` times; each walk changes every k-th row; a batch is one
stripe of one slice.  The reason is in docs/backfill.md: a page is visited again only after the whole chunk
was walked.  By then its dead rows can be pruned, and the new rows of the next stripe fit into the page
(heap-only tuples).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from psycopg import sql

from online_migrate.journal.records import CursorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The shape of a pass; it does not change while the pass lasts."""

    pages_total: int
    chunk_pages: int
    stripes: int

    def chunk_end(self, chunk: int) -> int:
        """The first page after the chunk.  The last chunk includes a small rest, so that no revisit interval
        is short.
        """
        end = chunk + self.chunk_pages
        return self.pages_total if self.pages_total - end < self.chunk_pages // 2 else end


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The next batch: stripe ``stripe`` of the slice at page ``slice`` of the chunk that begins at page
    ``chunk``.
    """

    chunk: int = 0
    stripe: int = 0
    slice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The pages of one batch, and the position after it."""

    first_page: int
    end_page: int
    stripe: int
    stripes: int
    then: Position

    @property
    def pages(self) -> int:
        return self.end_page - self.first_page

    @property
    def condition(self) -> sql.Composed:
        """The rows: a TID range, and every k-th line pointer; the last stripe takes all that are left.

        tidsend() returns the block in four bytes and the line pointer in two; its low byte suffices to spread
        rows.
        """
        first, end = f"({self.first_page},0)", f"({self.end_page},0)"
        if self.stripe == self.stripes - 1:
            return tid_range(first, end)
        return sql.SQL(
            "{} AND pg_catalog.get_byte(pg_catalog.tidsend(ctid), 5) OPERATOR(pg_catalog.%) {}"
            " OPERATOR(pg_catalog.=) {}"
        ).format(tid_range(first, end), self.stripes, self.stripe)


def tid_range(first: str, end: str) -> sql.Composed:
    """From one TID to before another; each name qualified, since a batch runs with the users' search_path."""
    return sql.SQL(
        "ctid OPERATOR(pg_catalog.>=) {}::pg_catalog.tid AND ctid OPERATOR(pg_catalog.<) {}::pg_catalog.tid"
    ).format(first, end)


def next_slice(walk: Walk, position: Position, pages: int) -> Slice | None:
    """The next batch of at most ``pages`` pages, or None at the end of the pass.

    The last two of a stripe have the same size: no batch has its fixed cost for only a few pages.
    """
    if position.chunk >= walk.pages_total:
        return None
    chunk_end = walk.chunk_end(position.chunk)
    left, most = chunk_end - position.slice, max(pages, 1)
    if most < left < 2 * most:
        most = math.ceil(left / 2)
    end = min(position.slice + most, chunk_end)
    if end < chunk_end:
        then = Position(chunk=position.chunk, stripe=position.stripe, slice=end)
    elif position.stripe + 1 < walk.stripes:
        then = Position(chunk=position.chunk, stripe=position.stripe + 1, slice=position.chunk)
    else:
        then = Position(chunk=chunk_end, stripe=0, slice=chunk_end)
    return Slice(
        first_page=position.slice, end_page=end, stripe=position.stripe, stripes=walk.stripes, then=then
    )


def share_done(walk: Walk, position: Position) -> float:
    """0…1: pages done ÷ pages at the start; a page of k stripes is done when it was visited k times."""
    if walk.pages_total == 0 or position.chunk >= walk.pages_total:
        return 1.0
    length = walk.chunk_end(position.chunk) - position.chunk
    walked = (position.stripe + (position.slice - position.chunk) / length) / walk.stripes
    return float((position.chunk + walked * length) / walk.pages_total)


def walk_of(cursor: CursorRecord) -> Walk:
    """The shape of a cursor's pass."""
    return Walk(pages_total=cursor.pages_total, chunk_pages=cursor.chunk_pages, stripes=cursor.stripes)


def position_of(cursor: CursorRecord) -> Position:
    """The position of a cursor."""
    return Position(chunk=cursor.chunk, stripe=cursor.stripe, slice=cursor.slice)
