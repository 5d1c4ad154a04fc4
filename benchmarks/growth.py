"""How a backfill scales: ten times the rows, queries that hold snapshots, and two tables at once."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.backfill import one_update
from benchmarks.ground import (
    SHAPES,
    PeakMemory,
    copied,
    dsn_of,
    fill,
    machine,
    open_session,
    read_hot_share,
    read_sizes,
    server,
    write_section,
)
from benchmarks.standby import ask, await_true, start_pair
from benchmarks.workbench import Heard, begin_journal, workbench
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import Signal, SystemClock
from online_migrate.engine.runner import Runner
from online_migrate.errors import Interrupted
from online_migrate.events import BatchDone, Event, Sinks
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load
from online_migrate.plan.model import HoldWhen, Pace
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.server import Server, start_server
from online_migrate.run import RunContext

PLAN = """
plan: growth
table_sets: {{both: {{tables: [t, u]}}}}
stages:
  - stage: fill
    pace: {{duty: {workers}00%, workers: {workers}}}
    steps:
      - backfill: {{tables: both, column: bot_id, value: 1}}
"""
TARGETS = (
    "time per row ≤ 1.1 ×; heap-only ≥ 75 % beside a 0.5 s query and with two workers;"
    " resume < 1 s; memory flat; hold within 2 s of a"
    " standby's pause"
)
ROOMY = {"shared_buffers": "4GB", "max_wal_size": "20GB"}
"""settings that give the large table the conditions of the small one: its pages and indexes stay in memory,
and no checkpoint makes each page write another full-page image"""
AUTOANALYZES = 3
"""that the longer runs must include"""
BATCHES_BEFORE = 5
"""after which a backfill is running"""
STANDBY_LAG = 1024**2
"""bytes; a limit that is exceeded at once, so that only our own reaction time is measured"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run, unthrottled."""

    what: str
    rows: int
    seconds: float
    us_per_row: float
    batches: int
    hot_share: float | None
    table_ratio: float
    chunk_pages: int
    autoanalyzes: int
    """of the filled tables, during the run"""
    peak_memory_bytes: int


@contextmanager
def queries(dsn: str, seconds: float | None) -> Iterator[None]:
    """A query of so many seconds, repeated beside us; None: one snapshot that is held all the time."""
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
    """No session beside us."""
    yield


class Ears:
    """The events of a run, by table."""

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = {}

    def emit(self, event: Event) -> None:
        self.heard.setdefault(event.table, Heard()).events.append(event)


def run_alone(dsn: str) -> tuple[float, Heard]:
    """The backfill of ``t`` alone; seconds, and its events."""
    heard, began = Heard(), time.perf_counter()
    with workbench(dsn, "t", emit=heard.emit) as context:
        Backfill(context, table="t", column="bot_id", value=Constant.of(1)).run()
    return time.perf_counter() - began, heard


def run_plan(dsn: str, workers: int) -> tuple[float, Heard]:
    """A plan over ``t`` and ``u`` by the runner, check included; seconds, and the events of ``t``."""
    ears, began = Ears(), time.perf_counter()
    Runner(
        context=RunContext.create(
            load(PLAN.format(workers=workers), OPERATIONS, path=Path("growth.yaml")),
            Connector(dsn=dsn),
            clock=SystemClock(),
            signal=Signal(),
            sink=Sinks([ears]),
            secrets=Secrets({}, {}),
            show_secret=lambda *_: "",
        )
    ).run()
    return time.perf_counter() - began, ears.heard["t"]


def run_one_update(dsn: str) -> tuple[float, Heard]:
    """The peer; it has no events."""
    began = time.perf_counter()
    one_update(dsn)
    return time.perf_counter() - began, Heard()


def measure(  # what a row of the table says
    made: Server,
    template: str,
    what: str,
    rows: int,
    beside: Callable[[str], Any] = nothing,
    *,
    run: Callable[[str], tuple[float, Heard]] = run_alone,
    tables: tuple[str, ...] = ("t",),
) -> Result:
    """On a fresh copy."""
    with copied(made, template) as dsn:
        with open_session(dsn, "sizes") as connection:
            before, memory = read_sizes(connection).table, PeakMemory()
        with beside(dsn):
            seconds, heard = run(dsn)
        peak_memory_bytes = memory.read()
        with open_session(dsn, "sizes") as connection:
            after = read_sizes(connection).table
            row = connection.execute(
                "SELECT min(autoanalyze_count) FROM pg_stat_user_tables"
                " WHERE schemaname = 'public' AND relname = ANY (%s)",
                [list(tables)],
            ).fetchone()
        shares = [s for t in tables if (s := read_hot_share(dsn, t)) is not None]
    found = Result(
        what=what,
        rows=rows * len(tables),
        seconds=seconds,
        us_per_row=seconds / rows / len(tables) * 1e6,
        batches=len(heard.of("batch_done")),
        hot_share=min(shares, default=None),
        table_ratio=after / before,
        chunk_pages=max([s.chunk_pages for s in heard.of("backfill_started")], default=0),
        autoanalyzes=row[0] if row else 0,
        peak_memory_bytes=peak_memory_bytes,
    )
    print(f"{found}", file=sys.stderr)
    return found


def measure_thrice(made: Server, template: str, what: str, rows: int) -> Result:
    """The run in the middle: others are measured against it, so it must not be a lucky one."""
    return sorted((measure(made, template, what, rows) for _ in range(3)), key=lambda r: r.seconds)[1]


def measure_roomy(rows: int, large: int, settings: dict[str, str]) -> tuple[Result, Result]:
    """The small and the large table on a server that keeps either in memory."""
    with server(settings | ROOMY) as made:
        fill_template(made, "small", rows, ["t"])
        small = measure_thrice(made, "small", "nothing; roomy", rows)
        fill_template(made, "large", large, ["t"])
        return small, measure(made, "large", "nothing; roomy", large)


def measure_hold(rows: int = 200_000) -> tuple[float, float]:
    """Beside a standby that stops replaying: seconds from the pause to our hold, and from the end of its lag
    to our next batch.
    """
    heard, signal = Heard(), Signal()

    def work(dsn: str) -> None:
        hold_when = HoldWhen.model_construct(standby_lag=STANDBY_LAG)
        with (
            workbench(dsn, "t", pace=Pace(), hold_when=hold_when, emit=heard.emit, signal=signal) as context,
            suppress(Interrupted),
        ):
            Backfill(context, table="t", column="bot_id", value=Constant.of(1)).run()

    def number_of(name: str) -> int:
        return len(heard.of(name))

    with start_pair(start_server) as pair, ThreadPoolExecutor(1) as pool:
        with open_session(pair.primary.dsn, "fill") as connection:
            fill(connection, SHAPES["int"], rows)
        pair.await_caught_up()
        working = pool.submit(work, pair.primary.dsn)
        await_true(lambda: number_of("batch_done") > BATCHES_BEFORE, seconds=60)
        waits = number_of("wait_started")
        pair.pause()
        paused = time.monotonic()
        await_true(lambda: number_of("wait_started") > waits)
        held_s = time.monotonic() - paused
        pair.resume()
        lag = "SELECT coalesce(max(pg_current_wal_lsn() - replay_lsn), 0) <= %s FROM pg_stat_replication"
        await_true(lambda: ask(pair.primary.dsn, lag, [STANDBY_LAG]) is True)
        resumed, batches = time.monotonic(), number_of("batch_done")
        await_true(lambda: number_of("batch_done") > batches)
        back_s = time.monotonic() - resumed
        signal.stop("measured")
        working.result()
    return held_s, back_s


def measure_resume(made: Server, template: str) -> float:
    """Seconds from the start of a second run to its first batch's commit, after the first run was stopped
    half way.
    """
    with copied(made, template) as dsn:
        with open_session(dsn, "begin") as connection:
            begun = begin_journal(connection, ["t"])
        signal = Signal()

        def stop_half_way(event_type: type, **fields: Any) -> None:
            if event_type is BatchDone and fields["share_done"] > 0.5:
                signal.stop("half way")

        try:
            with workbench(dsn, "t", begun=begun, emit=stop_half_way, signal=signal) as context:
                Backfill(context, table="t", column="bot_id", value=Constant.of(1)).run()
        except Interrupted:
            pass
        began, first = time.perf_counter(), Signal()
        took: list[float] = []

        def stop_at_once(event_type: type, **_: Any) -> None:
            if event_type is BatchDone and not took:
                took.append(time.perf_counter() - began)
                first.stop("measured")

        try:
            with workbench(dsn, "t", begun=begun, emit=stop_at_once, signal=first) as context:
                Backfill(context, table="t", column="bot_id", value=Constant.of(1)).run()
        except Interrupted:
            pass
        return took[0]


def fill_template(made: Server, name: str, rows: int, tables: list[str]) -> None:
    """A database with these tables."""
    with open_session(made.dsn, "fill") as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with open_session(dsn_of(made, name), "fill") as connection:
        for table in tables:
            fill(connection, SHAPES["int"], rows, table=table)


def table_of(results: list[Result]) -> str:
    """The table in Markdown."""
    lines = [
        (
            "| beside us | rows | seconds | µs per row | batches | heap-only | table × | chunk | autoanalyzes"
            " | peak memory |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.what} | {r.rows:,} | {r.seconds:.1f} | {r.us_per_row:.2f} | {r.batches:,}"
        f" | {r.hot_share or 0:.0%} | {r.table_ratio:.2f} |"
        f" {r.chunk_pages:,} | {r.autoanalyzes} | {r.peak_memory_bytes / 2**20:.0f} MiB |"
        for r in results
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=10, help="how much larger the second table is")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    rows, large = given.rows, given.rows * given.times
    busy = {"autovacuum_naptime": "1s"}
    peers, results = [], []
    with server(busy) as made:
        fill_template(made, "small", rows, ["t"])
        results.append(measure_thrice(made, "small", "nothing", rows))
        for what, length in (("a 0.5 s query, over and over", 0.5), ("a snapshot held all the time", None)):
            results.append(measure(made, "small", what, rows, partial(queries, seconds=length)))
        peers.append(measure(made, "small", "one UPDATE instead of us", rows, run=run_one_update))
        fill_template(made, "two", rows, ["t", "u"])
        for what, workers in (
            ("nothing; a run over two tables", 1),
            ("our second worker on a second table", 2),
        ):
            run = partial(run_plan, workers=workers)
            results.append(measure(made, "two", what, rows, run=run, tables=("t", "u")))
        fill_template(made, "large", large, ["t"])
        results.append(measure(made, "large", "nothing", large))
        peers.append(measure(made, "large", "one UPDATE instead of us", large, run=run_one_update))
        resume_s = measure_resume(made, "large")
        where = machine(made)
    roomy = measure_roomy(rows, large, busy)
    hold_s, back_s = measure_hold()
    ratios = {
        "ours": results[-1].us_per_row / results[0].us_per_row,
        "one UPDATE": peers[1].us_per_row / peers[0].us_per_row,
        "ours, roomy": roomy[1].us_per_row / roomy[0].us_per_row,
    }
    results += [*peers, *roomy]
    few = [r.what for r in results if r.rows > rows and r.batches and r.autoanalyzes < AUTOANALYZES]
    roomy_text = ", ".join(f"{name} = {value}" for name, value in ROOMY.items())
    ratios_text = ", ".join(f"{what} {ratio:.2f} ×" for what, ratio in ratios.items())
    summary = (
        f"*Roomy* is a server with {roomy_text}. Time per row at {large:,} rows, divided by that at {rows:,}:"
        f" {ratios_text}. A resume took {resume_s:.2f} s to its first commit. The default pace"
        f" held {hold_s:.2f} s"
        f" after a standby's replay was paused (limit {STANDBY_LAG // 1024**2} MiB), and"
        f" continued {back_s:.2f} s"
        " after the standby's lag was below the limit."
        + (f" Fewer than {AUTOANALYZES} autoanalyzes were met by: {', '.join(few)}." if few else "")
    )
    if given.json:
        measured = {"time_ratios": ratios, "resume_s": resume_s, "hold_s": hold_s, "back_s": back_s}
        print(json.dumps({"machine": where, "runs": [asdict(r) for r in results], **measured}, indent=2))
    else:
        print(f"{where}\n\n{table_of(results)}\n\n{summary}")
    if given.docs:
        write_section(
            "growth",
            f"{where}; one run each, for the first and the last but one the middle of three;"
            f" targets: {TARGETS}.\n\n{table_of(results)}\n\n{summary}",
        )


if __name__ == "__main__":
    main()
