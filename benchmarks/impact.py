"""What an application feels: its latencies beside a backfill at the default pace, beside one UPDATE, and alone.

The application runs in a process of its own: 4 connections, 300 transactions a second, each reads a row and updates it.

The control is a process that has nothing to do with the database: it computes while a batch of ours would, and sleeps while we
pause.  What the application feels of it is the machine's scheduler, which has a core less half of the time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event as Stopper
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.ground import SHAPES, copied, dsn_of, fill, machine, median, server, write_section
from benchmarks.workbench import Heard, workbench
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import Signal
from online_migrate.errors import Interrupted
from online_migrate.plan.model import Pace
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.server import Server

TARGET = "p99 beside the default pace ≤ 1.25 × without us (median of the pairs), no failed transaction"
CONTROL = "a core that computes half of the time, no database"
CLIENTS = 4
RATE = 75.0
"""transactions a second and client"""
CONTROLLED = 2
"""rounds with the control, which says what the machine does and not what we do"""
COLUMNS = 40
"""empty columns to fill one after the other, so that a backfill lasts as long as it is looked at"""


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


def client(dsn: str, rows: int, seed: int, over: Stopper, said: Any) -> None:
    """One connection of the application."""
    rng, took, failures = random.Random(seed), [], 0
    with psycopg.connect(dsn, autocommit=True, application_name="application") as connection:
        due = time.perf_counter()
        while not over.is_set():
            due = max(due + 1 / RATE, time.perf_counter() - 1)
            time.sleep(max(due - time.perf_counter(), 0))
            began, row = time.perf_counter(), rng.randint(1, rows)
            try:
                with connection.transaction():
                    connection.execute("SELECT amount FROM t WHERE id = %s", [row])
                    connection.execute("UPDATE t SET state = 'seen' WHERE id = %s", [row])
            except psycopg.Error:
                failures += 1
            took.append(time.perf_counter() - began)
    said.put((took, failures))


def application(dsn: str, rows: int, over: Stopper, said: Any) -> None:
    """All its connections."""
    threads = [threading.Thread(target=client, args=(dsn, rows, n, over, said)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def nobody(_: str, signal: Signal) -> int:
    """We are not there."""
    signal.event.wait()
    return 0


def ours(dsn: str, signal: Signal) -> int:
    """One column after the other at the default pace; returns the rows."""
    rows = 0
    for number in range(COLUMNS):
        if signal.is_stopping:
            break
        heard = Heard()
        try:
            with workbench(dsn, "t", pace=Pace(), signal=signal, emit=heard.emit) as bench:
                Backfill(bench, table="t", column=f"c{number}", value="1").run()
        except Interrupted:
            pass
        rows += sum(e.rows for e in heard.of("batch_done"))
    return rows


def one_update(dsn: str, signal: Signal) -> int:
    """One column after the other, each by one statement."""
    rows = 0
    with Connector(dsn=dsn).open("peer") as connection:
        for number in range(COLUMNS):
            if signal.is_stopping:
                break
            rows += connection.execute(
                sql.SQL("UPDATE t SET {} = 1").format(sql.Identifier(f"c{number}"))
            ).rowcount
    return rows


def compute(over: Stopper, busy_s: float, idle_s: float) -> None:
    """Spin and sleep by turns."""
    while not over.is_set():
        until = time.perf_counter() + busy_s
        while time.perf_counter() < until:
            pass
        time.sleep(idle_s)


def control(_: str, signal: Signal) -> int:
    """A process that spins for as long as a batch of the default pace, and sleeps for as long as its pause."""
    context, pace = multiprocessing.get_context("spawn"), Pace()
    over = context.Event()
    idle_s = pace.batch_target * (1 - pace.duty) / pace.duty
    process = context.Process(target=compute, args=(over, pace.batch_target, idle_s))
    process.start()
    signal.event.wait()
    over.set()
    process.join()
    return 0


BESIDE: dict[str, Callable[[str, Signal], int]] = {
    "nothing": nobody,
    "ours": ours,
    CONTROL: control,
    "one UPDATE": one_update,
}


def watch(made: Server, beside: str, rows: int, seconds: float) -> Felt:
    """One window on a fresh copy, after some seconds to warm up."""
    context = multiprocessing.get_context("spawn")
    with copied(made, "impact") as dsn:
        over, said, signal = context.Event(), context.Queue(), Signal()
        process = context.Process(target=application, args=(dsn, rows, over, said))
        process.start()
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(BESIDE[beside](dsn, signal)))
        began = time.perf_counter()
        thread.start()
        time.sleep(seconds)
        signal.stop("over")
        over.set()
        parts = [said.get() for _ in range(CLIENTS)]
        elapsed = time.perf_counter() - began
        process.join()
        thread.join()
    took = sorted(t for part, _ in parts for t in part)
    return Felt(
        beside=beside,
        transactions=len(took),
        failures=sum(f for _, f in parts),
        p50_ms=took[len(took) // 2] * 1e3,
        p99_ms=took[int(len(took) * 0.99)] * 1e3,
        longest_ms=took[-1] * 1e3,
        rows_per_s=(done[0] if done else 0) / elapsed,
    )


def p99_ratio(found: dict[str, list[Felt]], name: str, peer: str) -> float:
    """The median of the pairs."""
    return median([f.p99_ms / p.p99_ms for f, p in zip(found[name], found[peer], strict=False)])


def table_of(found: dict[str, list[Felt]]) -> str:
    """For people: medians."""
    lines = [
        "| beside the application | transactions | failed | p50 | p99 | longest | our rows/s | p99 × alone | p99 × control |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, felt in found.items():
        lines.append(
            f"| {name} | {sum(f.transactions for f in felt):,} | {sum(f.failures for f in felt)} | {median([f.p50_ms for f in felt]):.1f} ms |"
            f" {median([f.p99_ms for f in felt]):.1f} ms | {max(f.longest_ms for f in felt):,.0f} ms | {median([f.rows_per_s for f in felt]):,.0f} |"
            f" {p99_ratio(found, name, 'nothing'):.2f} | {p99_ratio(found, name, CONTROL):.2f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    found: dict[str, list[Felt]] = {name: [] for name in BESIDE}
    with server() as made:
        with Connector(dsn=made.dsn).open("fill") as connection:
            connection.execute("CREATE DATABASE impact")
        with Connector(dsn=dsn_of(made, "impact")).open("fill") as connection:
            rows = fill(connection, SHAPES["int"], given.rows)
            for number in range(COLUMNS):
                connection.execute(
                    sql.SQL("ALTER TABLE t ADD {} integer").format(sql.Identifier(f"c{number}"))
                )
        for pair in range(given.pairs):
            beside = ("nothing", "ours", CONTROL)[: 3 if pair < CONTROLLED else 2]
            for name in BESIDE if pair == 0 else beside:
                found[name].append(watch(made, name, rows, given.seconds))
                print(f"pair {pair + 1} {found[name][-1]}", file=sys.stderr)
        where = machine(made)
    if given.json:
        windows = {n: [asdict(f) for f in felt] for n, felt in found.items()}
        ratios = {peer: p99_ratio(found, "ours", peer) for peer in ("nothing", CONTROL)}
        print(json.dumps({"windows": windows, "p99_ratio_of_ours": ratios}, indent=2))
    else:
        print(table_of(found))
    if given.docs:
        rounds = f"{given.pairs} alternating rounds of {given.seconds:.0f} s each, the control in {CONTROLLED}, one UPDATE once"
        text = f"{where}; {rounds}; target: {TARGET}."
        write_section("impact", f"{text}\n\n{table_of(found)}")


if __name__ == "__main__":
    main()
