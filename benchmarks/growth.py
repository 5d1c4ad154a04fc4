"""Does it stay as it is when the table is ten times larger, when queries hold snapshots, and when two tables are filled at once?"""

from __future__ import annotations

import argparse
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.ground import (
    SHAPES,
    copied,
    dsn_of,
    fill,
    machine,
    read_hot_share,
    read_sizes,
    server,
    write_section,
)
from benchmarks.workbench import Heard, begin_journal, workbench
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import Signal, SystemClock
from online_migrate.engine.runner import Runner
from online_migrate.engine.secrets import Secrets
from online_migrate.errors import Interrupted
from online_migrate.events import BatchDone, Event, Sinks
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.server import Server

PLAN = """
plan: growth
table_sets: {{both: {{tables: [t, u]}}}}
stages:
  - stage: fill
    pace: {{duty: {workers}00%, workers: {workers}}}
    steps:
      - backfill: {{tables: both, column: bot_id, value: 1}}
"""
TARGETS = "time per row ≤ 1.1 ×; heap-only ≥ 75 % beside a 0.5 s query and with two workers; resume < 1 s; memory flat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of ours, unthrottled."""

    what: str
    rows: int
    seconds: float
    us_per_row: float
    hot_share: float | None
    table_ratio: float
    chunk_pages: int
    autoanalyzes: int
    peak_memory_bytes: int


@contextmanager
def queries(dsn: str, seconds: float | None) -> Iterator[None]:
    """A query of so many seconds over and over beside us; None: one snapshot held all the time."""
    over = threading.Event()

    def ask() -> None:
        with psycopg.connect(dsn, autocommit=True, application_name="report") as connection:
            if seconds is None:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
                over.wait()
            while not over.is_set():
                connection.execute(sql.SQL("SELECT pg_sleep({})").format(sql.Literal(seconds)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(0.1)
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def nothing(_: str) -> Iterator[None]:
    """Nobody beside us."""
    yield


class Ears:
    """What a run tells, by table."""

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = {}

    def emit(self, event: Event) -> None:
        self.heard.setdefault(event.table, Heard()).events.append(event)


def run_alone(dsn: str) -> tuple[float, Heard]:
    """The backfill of ``t`` by itself; seconds, and what it told."""
    heard, began = Heard(), time.perf_counter()
    with workbench(dsn, "t", emit=heard.emit) as bench:
        Backfill(bench, table="t", column="bot_id", value="1").run()
    return time.perf_counter() - began, heard


def run_plan(dsn: str, workers: int) -> tuple[float, Heard]:
    """A plan over ``t`` and ``u`` by the runner itself, check included; seconds, and what it told of ``t``."""
    ears, began = Ears(), time.perf_counter()
    Runner(
        plan=load(PLAN.format(workers=workers), OPERATIONS, path=Path("growth.yaml")),
        connector=Connector(dsn=dsn),
        clock=SystemClock(),
        signal=Signal(),
        sink=Sinks([ears]),
        secrets=Secrets({}, {}),
        show_secret=lambda *_: "",
    ).run()
    return time.perf_counter() - began, ears.heard["t"]


def measure(
    made: Server,
    template: str,
    what: str,
    rows: int,
    beside: Callable[[str], Any] = nothing,
    workers: int | None = None,
) -> Result:
    """On a fresh copy: the backfill of one table, or a plan over two."""
    tables = ["t"] if workers is None else ["t", "u"]
    with copied(made, template) as dsn:
        with Connector(dsn=dsn).open("sizes") as connection:
            before = read_sizes(connection).table
        with beside(dsn):
            seconds, heard = run_alone(dsn) if workers is None else run_plan(dsn, workers)
        with Connector(dsn=dsn).open("sizes") as connection:
            after = read_sizes(connection).table
            row = connection.execute("SELECT max(autoanalyze_count) FROM pg_stat_user_tables").fetchone()
            chunk = connection.execute(
                "SELECT max(chunk_pages) FROM online_migrate.cursor WHERE pass_name <> 'sweep'"
            ).fetchone()
        shares = [s for t in tables if (s := read_hot_share(dsn, t)) is not None]
        started = heard.of("backfill_started")
        return Result(
            what=what,
            rows=rows * len(tables),
            seconds=seconds,
            us_per_row=seconds / rows / len(tables) * 1e6,
            hot_share=min(shares, default=None),
            table_ratio=after / before,
            chunk_pages=max([s.chunk_pages for s in started] + [chunk[0] or 0 if chunk else 0]),
            autoanalyzes=0 if row is None else row[0],
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def measure_resume(made: Server, template: str) -> float:
    """Seconds from the start of a second run to its first batch's commit, after the first run was stopped half way."""
    with copied(made, template) as dsn:
        with Connector(dsn=dsn).open("begin") as connection:
            begun = begin_journal(connection, ["t"])
        signal = Signal()

        def stop_half_way(event_type: type, **fields: Any) -> None:
            if event_type is BatchDone and fields["share_done"] > 0.5:
                signal.stop("half way")

        try:
            with workbench(dsn, "t", begun=begun, emit=stop_half_way, signal=signal) as bench:
                Backfill(bench, table="t", column="bot_id", value="1").run()
        except Interrupted:
            pass
        began, first = time.perf_counter(), Signal()
        took: list[float] = []

        def stop_at_once(event_type: type, **_: Any) -> None:
            if event_type is BatchDone and not took:
                took.append(time.perf_counter() - began)
                first.stop("measured")

        try:
            with workbench(dsn, "t", begun=begun, emit=stop_at_once, signal=first) as bench:
                Backfill(bench, table="t", column="bot_id", value="1").run()
        except Interrupted:
            pass
        return took[0]


def fill_template(made: Server, name: str, rows: int, tables: list[str]) -> None:
    """A database with these tables."""
    with Connector(dsn=made.dsn).open("fill") as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with Connector(dsn=dsn_of(made, name)).open("fill") as connection:
        for table in tables:
            fill(connection, SHAPES["int"], rows, table=table)


def table_of(results: list[Result]) -> str:
    """For people."""
    lines = [
        "| beside us | rows | seconds | µs per row | heap-only | table × | chunk | autoanalyzes | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.what} | {r.rows:,} | {r.seconds:.1f} | {r.us_per_row:.2f} | {r.hot_share or 0:.0%} | {r.table_ratio:.2f} | {r.chunk_pages:,} |"
        f" {r.autoanalyzes} | {r.peak_memory_bytes / 2**20:.0f} MiB |"
        for r in results
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=10, help="how much larger the second table is")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    results = []
    with server({"autovacuum_naptime": "1s"}) as made:
        fill_template(made, "small", given.rows, ["t"])
        results.append(measure(made, "small", "nothing", given.rows))
        for what, length in (("a 0.5 s query, over and over", 0.5), ("a snapshot held all the time", None)):
            results.append(measure(made, "small", what, given.rows, partial(queries, seconds=length)))
        fill_template(made, "two", given.rows, ["t", "u"])
        results.append(measure(made, "two", "nothing; a run over two tables", given.rows, workers=1))
        results.append(measure(made, "two", "our second worker on a second table", given.rows, workers=2))
        large = given.rows * given.times
        fill_template(made, "large", large, ["t"])
        results.append(measure(made, "large", "nothing", large))
        resume_s = measure_resume(made, "large")
        where = machine(made)
    ratio = results[-1].us_per_row / results[0].us_per_row
    summary = f"Time per row at {large:,} rows is {ratio:.2f} × that at {given.rows:,}; resume to the first commit took {resume_s:.2f} s."
    if given.json:
        print(
            json.dumps(
                {"runs": [asdict(r) for r in results], "time_ratio": ratio, "resume_s": resume_s}, indent=2
            )
        )
    else:
        print(f"{table_of(results)}\n\n{summary}")
    if given.docs:
        write_section(
            "growth", f"{where}; one run each; targets: {TARGETS}.\n\n{table_of(results)}\n\n{summary}"
        )


if __name__ == "__main__":
    main()
