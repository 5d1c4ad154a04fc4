"""The speed of a backfill, its WAL and the size of the table afterwards, compared with the ways of other
tools.

The ways alternate on fresh copies of the same filled table; medians of the rounds; ratios within a round,
then their median.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from psycopg import sql

from benchmarks.ground import (
    SHAPES,
    PeakMemory,
    Shape,
    copied,
    dsn_of,
    fill,
    machine,
    median,
    open_session,
    read_hot_share,
    read_server_cpu_s,
    read_sizes,
    server,
    spread,
    write_section,
)
from benchmarks.workbench import workbench
from online_migrate.backfill.chunks import Position, next_slice
from online_migrate.backfill.context import Target
from online_migrate.backfill.strategy import decide_strategy
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.journal.schema import ensure_schema
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.server import Server

TARGETS = (
    "≥ 2.0 × the rows/s of one UPDATE, WAL ≤ 0.55 ×, table ≤ 1.2 ×, indexes ≤ 1.15 ×;"
    " index exists: ≥ 0.9 ×, table ≤ 1.25 ×"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of one way on one table."""

    seconds: float
    cpu_s: float
    """of the orchestrator"""
    server_cpu_s: float
    wal_bytes: int
    table_ratio: float
    index_ratio: float
    hot_share: float | None
    peak_memory_bytes: int
    """of the orchestrator during the run"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The medians of one way on one shape; ratios are against one UPDATE."""

    shape: str
    way: str
    rows: int
    seconds: float
    seconds_spread: float
    rows_per_s: float
    wal_bytes: float
    table_ratio: float
    index_ratio: float
    hot_share: float | None
    speed_ratio: float
    wal_ratio: float
    server_cpu_s: float
    server_cpu_ratio: float
    cpu_s: float
    """of the orchestrator"""
    peak_memory_bytes: int


def one_update(dsn: str) -> None:
    """The whole table in one statement."""
    with open_session(dsn, "peer") as connection:
        connection.execute("UPDATE t SET bot_id = 1")


def keyset(size: int) -> Callable[[str], None]:
    """Batches along the key, each committed: as pgroll and GitLab do."""

    def walk(dsn: str) -> None:
        statement = sql.SQL(
            "WITH b AS MATERIALIZED"
            " (SELECT id FROM t WHERE {after} ORDER BY id LIMIT {size} FOR NO KEY UPDATE),"
            " u AS (UPDATE t SET bot_id = 1 FROM b WHERE t.id = b.id RETURNING 1)"
            " SELECT (SELECT id::text FROM b ORDER BY b.id DESC LIMIT 1), count(*) FROM u"
        )
        after: sql.Composable = sql.SQL("true")
        with open_session(dsn, "peer") as connection:
            while True:
                row = connection.execute(statement.format(after=after, size=sql.Literal(size))).fetchone()
                if row is None or row[0] is None:
                    return
                after = sql.SQL("id > {}").format(sql.Literal(row[0]))

    return walk


def ours(dsn: str) -> None:
    """Interleaved (or in one stripe with vacuum rounds), unthrottled, with its proof at the end."""
    with workbench(dsn, "t") as context:
        Backfill(context, table="t", column="bot_id", value=Constant.of(1)).run()


def statements_alone(dsn: str) -> None:
    """Ours without its gentle and safe parts: one statement for each stripe of a chunk, no fence, no
    cursor, no proof.

    It is what the server's own work costs, and so the bound of ours.  Where an index holds the column there
    are no stripes: one statement.
    """
    with open_session(dsn, "peer") as connection:
        table = Catalog(connection).table("t")
        assert table is not None  # the benchmark has made it
        walk, position = decide_strategy(connection, table, "bot_id").walk, Position()
        connection.execute(
            "SET synchronous_commit = off; SET enable_seqscan = off; SET enable_indexscan = off"
        )
        while (part := next_slice(walk, position, walk.pages_total)) is not None:
            connection.execute(
                Target(table=table, column="bot_id", value=Constant.of(1)).update(part.condition)
            )
            position = part.then


def instant(dsn: str) -> None:
    """ADD COLUMN with a default; possible only while the column does not exist yet."""
    with open_session(dsn, "peer") as connection:
        connection.execute(
            "ALTER TABLE t DROP COLUMN bot_id; ALTER TABLE t ADD COLUMN bot_id integer DEFAULT 1"
        )


WAYS: dict[str, Callable[[str], None]] = {
    "one UPDATE": one_update,
    "keyset 1,000": keyset(1_000),
    "keyset 10,000": keyset(10_000),
    "ours": ours,
    "statements alone": statements_alone,
    "instant": instant,
}
BRIEF = ["one UPDATE", "ours", "statements alone"]


def measure(made: Server, template: str, way: str) -> Measured:
    """One way on a fresh copy; the journal, if it is needed, is created before."""
    with copied(made, template) as dsn:
        with open_session(dsn, "sizes") as connection:
            if way == "ours":
                ensure_schema(connection)
            before, memory = read_sizes(connection), PeakMemory()
            server_cpu, cpu, began = read_server_cpu_s(made), time.process_time(), time.perf_counter()
            WAYS[way](dsn)
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
            server_cpu_s = read_server_cpu_s(made) - server_cpu
            peak_memory_bytes = memory.read()
            after = read_sizes(connection)
        return Measured(
            seconds=seconds,
            cpu_s=cpu_s,
            server_cpu_s=server_cpu_s,
            wal_bytes=after.wal - before.wal,
            table_ratio=after.table / before.table,
            index_ratio=after.indexes / before.indexes,
            hot_share=read_hot_share(dsn),
            peak_memory_bytes=peak_memory_bytes,
        )


def run_shape(made: Server, shape: Shape, rows: int, rounds: int, ways: list[str]) -> list[Result]:
    """Alternate the ways for this number of rounds."""
    template = f"shape_{shape.name}"
    with open_session(made.dsn, "fill") as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
    with open_session(dsn_of(made, template), "fill") as connection:
        fill(connection, shape, rows)
    found: dict[str, list[Measured]] = {w: [] for w in ways}
    for number in range(rounds):
        for way in ways:
            found[way].append(measure(made, template, way))
            m = found[way][-1]
            print(
                f"{shape.name:6} round {number + 1} {way:14} {m.seconds:7.2f} s {m.wal_bytes / 1e6:7.0f} MB",
                file=sys.stderr,
            )
    with open_session(made.dsn, "fill") as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(template)))
    return [_result(shape.name, way, rows, found[way], found[ways[0]]) for way in ways]


def _result(shape: str, way: str, rows: int, found: list[Measured], peer: list[Measured]) -> Result:
    seconds = [m.seconds for m in found]
    shares = [m.hot_share for m in found if m.hot_share is not None]
    return Result(
        shape=shape,
        way=way,
        rows=rows,
        seconds=median(seconds),
        seconds_spread=spread(seconds),
        rows_per_s=rows / median(seconds),
        wal_bytes=median([m.wal_bytes for m in found]),
        table_ratio=median([m.table_ratio for m in found]),
        index_ratio=median([m.index_ratio for m in found]),
        hot_share=median(shares) if shares else None,
        speed_ratio=median([p.seconds / m.seconds for m, p in zip(found, peer, strict=True)]),
        wal_ratio=median([m.wal_bytes / p.wal_bytes for m, p in zip(found, peer, strict=True)]),
        server_cpu_s=median([m.server_cpu_s for m in found]),
        server_cpu_ratio=median(
            [m.server_cpu_s / max(p.server_cpu_s, 0.01) for m, p in zip(found, peer, strict=True)]
        ),
        cpu_s=median([m.cpu_s for m in found]),
        peak_memory_bytes=max(m.peak_memory_bytes for m in found),
    )


def table_of(results: list[Result]) -> str:
    """The table in Markdown."""
    lines = [
        (
            "| shape | way | rows | seconds | rows/s | × one UPDATE | × its CPU | WAL | × its WAL | table ×"
            " | indexes × | heap-only | client |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        hot = "–" if r.hot_share is None else f"{r.hot_share:.0%}"
        speed = f"{r.seconds:.2f} ± {r.seconds_spread:.0%} | {r.rows_per_s:,.0f}"
        speed += f" | {r.speed_ratio:.2f} | {r.server_cpu_ratio:.2f}"
        size = f"{r.wal_bytes / 1e6:.0f} MB | {r.wal_ratio:.2f}"
        size += f" | {r.table_ratio:.2f} | {r.index_ratio:.2f} | {hot}"
        client = f"{r.cpu_s:.2f} s, {r.peak_memory_bytes / 2**20:.0f} MiB"
        lines.append(f"| {r.shape} | {r.way} | {r.rows:,} | {speed} | {size} | {client} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of %(default)s")
    parser.add_argument("--ways", default=";".join(WAYS), help="of %(default)s; the first is the peer")
    parser.add_argument(
        "--brief", action="store_true", help=f"all ways on the first shape, on the others {', '.join(BRIEF)}"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    results: list[Result] = []
    with server() as made:
        for number, name in enumerate(given.shapes.split(",")):
            ways = BRIEF if given.brief and number else given.ways.split(";")
            results += run_shape(made, SHAPES[name], given.rows, given.rounds, ways)
        where = machine(made)
    if given.json:
        print(json.dumps([{**asdict(r), "machine": where} for r in results], indent=2))
    else:
        print(f"{where}\n\n{table_of(results)}")
    if given.docs:
        mine = [r for r in results if r.way == "ours"]
        own = max(r.cpu_s / r.seconds for r in mine)
        memory = max(r.peak_memory_bytes for r in mine)
        write_section(
            "backfill",
            f"{where}; medians of {given.rounds} alternating rounds; targets: {TARGETS}.\n\n"
            f"{table_of(results)}\n\n"
            f"The orchestrator itself took at most {own:.1%} of one core and {memory / 2**20:.0f} MiB.",
        )


if __name__ == "__main__":
    main()
