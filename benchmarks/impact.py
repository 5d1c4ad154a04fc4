"""The latencies of an application beside a backfill at the default pace, beside one UPDATE, and alone.

The application runs in a process of its own: 4 connections, 300 transactions a second, each reads a row and
updates it.

A latency counts from when a transaction was due, so that one that is blocked also delays the next ones.

*Apart* gives the application and its sessions one core, and us and the rest of the server another: its
latency then is the database, and not the scheduler that lets two processes share a core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.synchronize import Event as Stopper
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
    median,
    open_session,
    server,
    write_section,
)
from benchmarks.workbench import Heard, workbench
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import Signal
from online_migrate.errors import Interrupted
from online_migrate.events import BatchDone, Event
from online_migrate.plan.model import Pace
from online_migrate.postgres.server import Server

TARGET = "p99 beside the default pace ≤ 1.25 × without us (median of the pairs), no failed transaction"
NOTHING, OURS, UPDATE = "nothing", "ours", "one UPDATE"
NOTHING_APART, OURS_APART = "nothing; on a core of its own", "ours; each on a core of its own"
WARM_UP_S = 3.0
"""the first transactions of each window, not counted: sessions are opened, caches filled"""
CLIENTS = 4
RATE = 75.0
"""transactions per second and client"""
COLUMNS = 40
"""empty columns to fill one after the other, so that the backfill lasts for the whole measurement"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """The application's transactions in one window; milliseconds."""

    beside: str
    transactions: int
    failures: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    rows_per_s: float


def client(
    dsn: str, rows: int, seed: int, core: int | None, over: Stopper, said: Any, *, warm_up_s: float
) -> None:
    """One connection; reports when each transaction was due, its duration, and failures.

    It makes at least one transaction after the warm-up, however slow the machine is.
    """
    rng, took, failures = random.Random(seed), [], 0
    with psycopg.connect(dsn, autocommit=True, application_name="application") as connection:
        if core is not None:
            os.sched_setaffinity(connection.info.backend_pid, {core})
        began = due = time.perf_counter()
        while not over.is_set() or due - began < warm_up_s:
            due += 1 / RATE
            time.sleep(max(due - time.perf_counter(), 0))
            row = rng.randint(1, rows)
            try:
                with connection.transaction():
                    connection.execute("SELECT amount FROM t WHERE id = %s", [row])
                    connection.execute("UPDATE t SET state = 'seen' WHERE id = %s", [row])
            except psycopg.Error:
                failures += 1
            took.append((due - began, time.perf_counter() - due))
    said.put((took, failures))


def application(dsn: str, rows: int, core: int | None, warm_up_s: float, over: Stopper, said: Any) -> None:
    """All connections of the application."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    threads = [
        threading.Thread(
            target=client, args=(dsn, rows, n, core, over, said), kwargs={"warm_up_s": warm_up_s}
        )
        for n in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def only_on(core: int | None, made: Server) -> Iterator[None]:
    """Put this process and all of the server's, also later ones, on one core; None: change nothing."""
    if core is None:
        yield
        return
    postmaster = int((made.data / "postmaster.pid").read_text().split()[0])
    pids = [os.getpid(), postmaster, *children_of(postmaster)]
    before = os.sched_getaffinity(0)
    put(pids, {core})
    try:
        yield
    finally:
        put(pids, before)


def put(pids: list[int], cores: set[int]) -> None:
    """Those of the processes that still exist."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(pid, cores)


def children_of(parent: int) -> list[int]:
    """Source: proc(5), /proc/pid/task/tid/children."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def nobody(_: str, signal: Signal, begun: threading.Event) -> int:
    """No backfill; the application is alone."""
    begun.set()
    signal.event.wait()
    return 0


def ours(dsn: str, signal: Signal, begun: threading.Event) -> int:
    """One column after the other at the default pace; returns the rows."""
    rows = 0

    def emit(heard: Heard, event_type: type[Event], **fields: Any) -> None:
        heard.emit(event_type, **fields)
        if event_type is BatchDone:
            begun.set()

    for number in range(COLUMNS):
        if signal.is_stopping:
            break
        heard = Heard()
        try:
            with workbench(dsn, "t", pace=Pace(), signal=signal, emit=partial(emit, heard)) as context:
                Backfill(context, table="t", column=f"c{number}", value=Constant.of(1)).run()
        except Interrupted:
            pass
        rows += sum(e.rows for e in heard.of("batch_done"))
    return rows


def one_update(dsn: str, signal: Signal, begun: threading.Event) -> int:
    """One column after the other, each by one statement."""
    rows = 0
    with open_session(dsn, "peer") as connection:
        for number in range(COLUMNS):
            if signal.is_stopping:
                break
            rows += connection.execute(
                sql.SQL("UPDATE t SET {} = 1").format(sql.Identifier(f"c{number}"))
            ).rowcount
            begun.set()
    return rows


BESIDE: dict[str, Callable[[str, Signal, threading.Event], int]] = {
    NOTHING: nobody,
    OURS: ours,
    UPDATE: one_update,
    NOTHING_APART: nobody,
    OURS_APART: ours,
}


def watch(made: Server, beside: str, rows: int, seconds: float) -> Felt:
    """One window on a fresh copy; raises the errors of the backfill."""
    context = multiprocessing.get_context("spawn")
    first, second = sorted(os.sched_getaffinity(0))[:2] if "core of its own" in beside else (None, None)
    with copied(made, "impact") as dsn, only_on(second, made), ThreadPoolExecutor(1) as pool:
        over, said, signal, begun = context.Event(), context.Queue(), Signal(), threading.Event()
        warm_up_s = min(WARM_UP_S, seconds)
        process = context.Process(target=application, args=(dsn, rows, first, warm_up_s, over, said))
        process.start()
        began = time.perf_counter()
        work = pool.submit(BESIDE[beside], dsn, signal, begun)
        wait([work], timeout=seconds + warm_up_s)
        while not (begun.wait(0.1) or work.done()):  # on a slow machine nothing may be committed yet
            pass
        signal.stop("over")
        over.set()
        parts = [said.get() for _ in range(CLIENTS)]
        elapsed = time.perf_counter() - began
        process.join()
        done = work.result()
    took = sorted(t for part, _ in parts for due, t in part if due >= warm_up_s)
    return Felt(
        beside=beside,
        transactions=len(took),
        failures=sum(f for _, f in parts),
        p50_ms=took[len(took) // 2] * 1e3,
        p99_ms=took[int(len(took) * 0.99)] * 1e3,
        longest_ms=took[-1] * 1e3,
        rows_per_s=done / elapsed,
    )


def p99_ratio(found: dict[str, list[Felt]], name: str) -> float:
    """The median of the pairs."""
    peer = NOTHING_APART if name in (NOTHING_APART, OURS_APART) else NOTHING
    return median([f.p99_ms / p.p99_ms for f, p in zip(found[name], found[peer], strict=False)])


def table_of(found: dict[str, list[Felt]]) -> str:
    """The table of medians in Markdown."""
    lines = [
        "| beside the application | transactions | failed | p50 | p99 | longest | our rows/s | p99 × alone |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, felt in found.items():
        lines.append(
            f"| {name} | {sum(f.transactions for f in felt):,} | {sum(f.failures for f in felt)}"
            f" | {median([f.p50_ms for f in felt]):.1f} ms | {median([f.p99_ms for f in felt]):.1f} ms"
            f" | {max(f.longest_ms for f in felt):,.0f} ms | {median([f.rows_per_s for f in felt]):,.0f} |"
            f" {p99_ratio(found, name):.2f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--apart", type=int, default=3, help="of them, so many with a core for each, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    if given.apart and len(os.sched_getaffinity(0)) < 2:
        parser.error("--apart needs two cores; give --apart 0")
    found: dict[str, list[Felt]] = {name: [] for name in BESIDE}
    with server() as made:
        with open_session(made.dsn, "fill") as connection:
            connection.execute("CREATE DATABASE impact")
        with open_session(dsn_of(made, "impact"), "fill") as connection:
            fill(connection, SHAPES["int"], given.rows)
            for number in range(COLUMNS):
                connection.execute(
                    sql.SQL("ALTER TABLE t ADD {} integer").format(sql.Identifier(f"c{number}"))
                )
        for pair in range(given.pairs):
            beside = [NOTHING, OURS] + [UPDATE] * (pair == 0)
            beside += [NOTHING_APART, OURS_APART] * (pair < given.apart)
            for name in beside:
                found[name].append(watch(made, name, given.rows, given.seconds))
                print(f"pair {pair + 1} {found[name][-1]}", file=sys.stderr)
        where = machine(made)
    found = {name: felt for name, felt in found.items() if felt}
    if given.json:
        windows = {n: [asdict(f) for f in felt] for n, felt in found.items()}
        ratios = {n: p99_ratio(found, n) for n in found}
        print(json.dumps({"machine": where, "windows": windows, "p99_ratios": ratios}, indent=2))
    else:
        print(f"{where}\n\n{table_of(found)}")
    if given.docs:
        rounds = (
            f"{given.pairs} alternating rounds of {given.seconds:.0f} s each, {given.apart} of them"
            " also apart, one UPDATE once"
        )
        text = f"{where}; {rounds}; target: {TARGET}."
        write_section("impact", f"{text}\n\n{table_of(found)}")


if __name__ == "__main__":
    main()
