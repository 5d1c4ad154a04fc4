"""How long the application waits behind our lock requests: each change beside a blocker, beside a slow
autovacuum, and the whole plan.

python -m benchmarks.locks [--json] [--rows N] [--users N] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
from psycopg import errors

from benchmarks.lock_changes import (
    AFTER_S,
    DDL,
    NAIVE,
    PLAN,
    Felt,
    call,
    felt_of_naive,
    felt_of_ours,
    fill,
    read_windows,
)
from benchmarks.lock_traffic import Hammer
from online_migrate.demo.operate import Operator, carry_out
from online_migrate.demo.shop import create_shop
from online_migrate.demo.traffic import Traffic
from online_migrate.figures import percentile
from online_migrate.postgres.server import Server, start_server

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks-locks.md"
PLANS = Path(__file__).parents[1] / "plans"
SLOW_VACUUM = {
    "autovacuum_naptime": "1s",
    "autovacuum_vacuum_cost_delay": "20ms",
    "autovacuum_vacuum_cost_limit": "20",
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_threshold": "1000",
}
HELD_P99_MS = 50.0
"""the promise: the 99th percentile of the time that strong locks are held, in the whole multi-tenant plan"""


SAMPLED_MS = 10.0
"""how far a sampled wait and the windows' own clocks may differ"""
BATCH_MS = 250.0
"""five times a batch's target, above which the pacer cuts it: its rows are locked for so long; a backfill
has no lock windows"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """ADD COLUMN beside a slow autovacuum, one way."""

    way: str
    had: bool
    seconds: float
    longest_ms: float
    in_queue_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The multi-tenant plan on the shop, under its application's traffic."""

    users: int
    seconds: float
    windows: int
    held_p50_ms: float
    held_p99_ms: float
    held_max_ms: float
    waited_max_ms: float
    transactions: int
    failures: int
    app_p99_ms: float
    app_max_ms: float


def new_database(server: Server, name: str) -> str:
    """An empty one; its DSN."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.dsn_for(name)


def measure_changes(server: Server, rows: int, folder: Path) -> tuple[list[Felt], list[Felt]]:
    """Ours and the naive way, each on a fresh table of the same rows."""
    ours, naive = new_database(server, "ours"), new_database(server, "naive")
    fill(ours, rows)
    felt = felt_of_ours(ours, rows, folder)
    fill(naive, rows)
    return felt, felt_of_naive(naive, rows)


def measure_autovacuum(rows: int, folder: Path) -> list[Beside]:
    """Three ways to ADD COLUMN while a slow autovacuum works on the table."""
    found: list[Beside] = []
    with start_server(settings=SLOW_VACUUM) as server:
        for way in ("online-migrate", "ALTER TABLE, no timeout", "ALTER TABLE, lock_timeout 500 ms, 8 times"):
            dsn = new_database(server, f"way_{len(found)}")
            fill(dsn, rows)
            await_autovacuum(dsn)
            with Hammer(dsn, rows) as hammer:
                hammer.rest(AFTER_S)
                began = monotonic()
                hammer.mark()
                had = add_column(dsn, way, folder)
                seconds = monotonic() - began
                hammer.rest(AFTER_S)
                beside = Beside(
                    way=way,
                    had=had,
                    seconds=round(seconds, 2),
                    longest_ms=round(hammer.longest_s * 1000, 1),
                    in_queue_ms=round(hammer.in_queue_s * 1000, 1),
                )
            found.append(beside)
    return found


def await_autovacuum(dsn: str) -> None:
    """Create dead rows until an autovacuum works on the table."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE t SET amount = amount + 1")
        query = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass"
        while connection.execute(query).fetchone() == (0,):
            connection.execute("SELECT pg_sleep(0.05)")


def add_column(dsn: str, way: str, folder: Path) -> bool:
    """Whether the column exists afterwards."""
    if way == "online-migrate":
        plan = folder / "vacuum.yaml"
        plan.write_text(
            PLAN.replace("plan: bench", "plan: vacuum").replace(
                "create_tables: bench.sql", "analyze: {table: bots}"
            )
        )
        (folder / "bench.sql").write_text(DDL)
        call(dsn, plan, "run", "--through", "add_column")
        return True
    with psycopg.connect(dsn, autocommit=True) as connection:
        if "500 ms" not in way:
            connection.execute("ALTER TABLE t ADD COLUMN bot_id integer")
            return True
        connection.execute("SET lock_timeout = '500ms'")
        for _ in range(8):
            try:
                connection.execute("ALTER TABLE t ADD COLUMN bot_id integer")
            except errors.LockNotAvailable:
                connection.execute("SELECT pg_sleep(0.2)")
            else:
                return True
    return False


def measure_whole(server: Server, users: int, folder: Path) -> Whole:
    """The whole plan, with gates approved, while the shop's application runs."""
    dsn = new_database(server, "shop")
    create_shop(dsn, users=users)
    secrets = {"MASTER_BOT_TOKEN": "made-up"}
    operator = Operator(dsn=dsn, plan=PLANS / "multi_tenant.yaml", folder=folder, secrets=secrets)
    with Traffic(dsn) as traffic:
        traffic.record.mark("during")
        began = monotonic()
        carry_out(operator, at_gate=lambda _: traffic.switch_to_new_release(read_master(dsn)))
        seconds = monotonic() - began
    windows = read_windows(dsn)
    held_ms = [h * 1000 for _, h in windows if h >= 0]
    felt = traffic.record.summary("during")
    return Whole(
        users=users,
        seconds=round(seconds, 1),
        windows=len(held_ms),
        held_p50_ms=round(percentile(held_ms, 0.5) or 0.0, 1),
        held_p99_ms=round(percentile(held_ms, 0.99) or 0.0, 1),
        held_max_ms=round(max(held_ms), 1),
        waited_max_ms=round(max(w for w, _ in windows) * 1000, 1),
        transactions=felt.transactions,
        failures=len(traffic.record.failures),
        app_p99_ms=round(felt.p99_ms, 1),
        app_max_ms=round(felt.longest_ms, 1),
    )


def read_master(dsn: str) -> int:
    """The master bot's key."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT id FROM bots WHERE is_master").fetchone()
    assert row is not None  # an earlier stage made it
    return int(row[0])


def markdown(figures: dict[str, Any]) -> str:
    """The text of the document."""
    ours, naive = figures["ours"], {n.change: n for n in figures["naive"]}
    whole: Whole = figures["whole"]
    lines = [
        f"Measured {figures['machine']}.",
        "",
        f"**Each change on a table of {figures['rows']:,} rows**, with one reader and one",
        "writer without pause,",
        "beside transactions that read and write the table and are then idle for 1.5 s. In",
        "ms: the longest time",
        "that a statement of the application waited in a lock's *queue* (pg_locks, sampled every 4 ms); the",
        "longest time in the queue and hold of one of our lock *windows*; the application's",
        "longest *latency*,",
        "disk and processors included; and that latency when *calm*, right before, while",
        "`explain` runs, which",
        "takes no lock. A backfill has no windows; its batches lock rows for some 50 ms.",
        "",
        (
            "| change | ours: queue | window | held | latency | calm | errors | seconds | plain: queue |"
            " latency"
            " | errors | seconds |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for felt in ours:
        other = naive[felt.change]
        lines.append(
            f"| {felt.change} | **{felt.in_queue_ms}** | {felt.bound_ms} | {felt.held_ms} | {felt.longest_ms}"
            f" | {felt.calm_ms} | {felt.errors} | {felt.seconds}"
            f" | **{other.in_queue_ms:,}** | {other.longest_ms:,} | {other.errors} | {other.seconds} |"
        )
    lines += ["", "*Plain* are these statements in psql:", ""]
    lines += [f"    {statement.strip()}" for statement in NAIVE.values()]
    lines += [
        "",
        "**ADD COLUMN beside a slow autovacuum** of the same table:",
        "",
        "| way | acquired | seconds | longest time of the application in the queue, ms | latency, ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        (
            f"| {b.way} | {'yes' if b.had else '**no**'} | {b.seconds} | **{b.in_queue_ms:,}** |"
            f" {b.longest_ms:,} |"
        )
        for b in figures["autovacuum"]
    ]
    lines += [
        "",
        f"**The whole multi-tenant plan** on the shop of {whole.users:,} users under its",
        "application's traffic,",
        f"{whole.seconds} s: {whole.windows} lock windows, held {whole.held_p50_ms} ms in the median,",
        f"**{whole.held_p99_ms} ms at p99**, {whole.held_max_ms} ms at most, and",
        f"{whole.waited_max_ms} ms at most in",
        f"the queue. The application: {whole.transactions:,} transactions, {whole.failures} failed,",
        f"p99 {whole.app_p99_ms} ms, longest {whole.app_max_ms} ms.",
    ]
    return "\n".join(lines)


def machine(version: str) -> str:
    """The machine and the date of the measurement."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, PostgreSQL {version}, {os.cpu_count()} cores,"
        f" {memory:.0f} GiB of memory,"
        f" load average {os.getloadavg()[0]:.1f} at the end, {platform.system()}"
    )


def measure(rows: int, users: int) -> dict[str, Any]:
    """All figures, on servers of our own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with start_server() as server:
            ours, naive = measure_changes(server, rows, folder)
            whole = measure_whole(server, users, folder)
            version = server.version
        autovacuum = measure_autovacuum(rows, folder)
    return {
        "machine": machine(version),
        "rows": rows,
        "ours": ours,
        "naive": naive,
        "autovacuum": autovacuum,
        "whole": whole,
    }


def broken_promises(figures: dict[str, Any]) -> Sequence[str]:
    """The promises that the figures break."""
    whole: Whole = figures["whole"]
    broken = [f"{f.change}: {f.errors} statements failed" for f in figures["ours"] if f.errors]
    broken += [
        f"{f.change}: waited in a queue for {f.in_queue_ms} ms, its windows explain {f.bound_ms} ms"
        for f in figures["ours"]
        if f.in_queue_ms > f.bound_ms + SAMPLED_MS + BATCH_MS * (f.change == "backfill")
    ]
    if whole.held_p99_ms > HELD_P99_MS:
        broken.append(f"held {whole.held_p99_ms} ms at p99")
    return broken + [f"{whole.failures} transactions failed"] * bool(whole.failures)


def main() -> None:
    """The command; exit code 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks-locks.md")
    wishes = parser.parse_args()
    figures = measure(wishes.rows, wishes.users)
    text = markdown(figures)
    if wishes.write:
        command = f"python -m benchmarks.locks --rows {wishes.rows} --users {wishes.users} --write"
        DOCUMENT.write_text(
            f"# Locks, measured\n\nMade by `{command}` (`make bench-locks`).\n\n{text}\n", encoding="utf-8"
        )
    if wishes.json:
        print(json.dumps(figures, default=asdict, indent=2))
    else:
        print(text)
    for promise in broken_promises(figures):
        print(f"BROKEN: {promise}")
    raise SystemExit(bool(broken_promises(figures)))


if __name__ == "__main__":
    main()
