"""A plan over many small tables: what one instant step costs, and whether more tables raise it.

``python -m benchmarks.tables --tables 75 300`` runs the real command line on a throwaway server.  Each
table has 100 rows and a foreign key to its neighbour.  The run is at full duty, so that what is left is the
cost of steps.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.ground import dsn_of, machine, read_server_cpu_s, server, write_section
from online_migrate.postgres.server import Server

ROWS = 100
PLAN = """
plan: tables
table_sets: {{all: {{tables: [{tables}]}}}}
stages:
  - stage: columns
    steps:
      - add_column: {{tables: all, column: bot_id, type: integer, new_rows: 1}}
  - stage: backfill
    pace: {{duty: 100%}}
    steps:
      - backfill: {{tables: all, column: bot_id, value: 1}}
  - stage: indexes
    steps:
      - create_index: {{tables: all, name: idx_<table>_bot_id, columns: [bot_id]}}
  - stage: constraints
    steps:
      - add_foreign_key: {{tables: all, column: bot_id, references: bots.id, on_delete: cascade}}
      - set_not_null: {{tables: all, column: bot_id}}
  - stage: swap
    steps:
      - drop_default: {{tables: all, column: bot_id}}
      - verify_owner: {{tables: all, column: bot_id}}
  - stage: finish
    steps:
      - analyze: {{tables: all}}
"""
STEPS_OF_A_TABLE = 8
INSTANT = ("columns", "swap", "constraints")
"""stages of which each step is a few statements: no concurrent build, no pass over the rows"""
TARGETS = {"CPU per step": 0.006, "time per instant step": 0.025}
"""seconds; check of 300 tables ≤ 3 s, of 1,000 ≤ 10 s; memory ≤ 100 MB; status ≤ 50 ms without its start"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one command took: the process alone, not the server."""

    seconds: float
    cpu_s: float
    peak_bytes: int
    code: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A whole run over so many tables."""

    tables: int
    steps: int
    seconds: float
    cpu_s: float
    server_cpu_s: float
    commits: int
    peak_bytes: int
    check_s: float
    check_cpu_s: float
    check_peak_bytes: int
    status_cpu_s: float
    stages: dict[str, float]

    @property
    def cpu_per_step_s(self) -> float:
        return self.cpu_s / self.steps

    @property
    def instant_step_s(self) -> float:
        """Seconds of the instant stages, their steps' share."""
        steps = {"columns": 1, "constraints": 2, "swap": 2}
        return sum(self.stages[s] for s in INSTANT) / (self.tables * sum(steps.values()))


def call(arguments: Sequence[str], *, dsn: str, folder: Path) -> Cost:
    """Run ``online-migrate`` as an operator would."""
    environment = os.environ | {"ONLINE_MIGRATE_DSN": dsn, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as output, (folder / "errors.log").open("w") as errors:
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", "online_migrate.cli", *arguments],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=errors,
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Cost(
            seconds=time.monotonic() - began,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_bytes=usage.ru_maxrss * 1024,
            code=child.returncode,
            output=output.read(),
        )


@contextmanager
def shop(made: Server, tables: int) -> Iterator[str]:
    """A database with so many filled tables, each with a foreign key to its neighbour."""
    name = f"tables{tables}"
    with psycopg.connect(made.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(dsn_of(made, name), autocommit=True) as connection:
        connection.execute("CREATE TABLE bots (id integer PRIMARY KEY); INSERT INTO bots VALUES (1)")
        before = ""
        for table in names(tables):
            parent = sql.SQL("REFERENCES {}").format(sql.Identifier(before)) if before else sql.SQL("")
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {table} (id bigserial PRIMARY KEY, parent bigint {parent}, note text);"
                    " INSERT INTO {table} (parent, note) SELECT {key}, 'note ' || n"
                    " FROM generate_series(1, {rows}) n; CREATE INDEX ON {table} (parent)"
                ).format(
                    table=sql.Identifier(table),
                    parent=parent,
                    key=sql.SQL("n" if before else "NULL"),
                    rows=sql.Literal(ROWS),
                )
            )
            before = table
        connection.execute("VACUUM ANALYZE")
    yield dsn_of(made, name)


def names(tables: int) -> list[str]:
    """Of the tables."""
    return [f"t{n:04}" for n in range(tables)]


def measure(made: Server, tables: int, folder: Path) -> Result:
    """Check, run and look at the status of the plan over so many tables."""
    with shop(made, tables) as dsn:
        plan = folder / f"tables{tables}.yaml"
        plan.write_text(PLAN.format(tables=", ".join(names(tables))))
        checked = call(["check", str(plan)], dsn=dsn, folder=folder)
        cpu_s, commits = read_server_cpu_s(made), read_commits(dsn)
        ran = call(["run", str(plan), "--log-format", "json"], dsn=dsn, folder=folder)
        if ran.code:
            raise SystemExit(f"run ended with {ran.code}: {(folder / 'errors.log').read_text()[-2000:]}")
        server_cpu_s = read_server_cpu_s(made) - cpu_s
        events = map(json.loads, filter(None, (folder / "errors.log").read_text().splitlines()))
        status = call(["status", str(plan), "--json"], dsn=dsn, folder=folder)
        empty = call(["status", "--help"], dsn=dsn, folder=folder)
        return Result(
            tables=tables,
            steps=tables * STEPS_OF_A_TABLE,
            seconds=ran.seconds,
            cpu_s=ran.cpu_s,
            server_cpu_s=server_cpu_s,
            commits=read_commits(dsn) - commits,
            peak_bytes=ran.peak_bytes,
            check_s=checked.seconds,
            check_cpu_s=checked.cpu_s,
            check_peak_bytes=checked.peak_bytes,
            status_cpu_s=status.cpu_s - empty.cpu_s,
            stages={e["stage"]: e["seconds"] for e in events if e["event"] == "stage_ended"},
        )


def read_commits(dsn: str) -> int:
    """Transactions of the database so far; sessions report theirs when they end."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None  # each database has its row
    return int(row[0])


def line(result: Result) -> str:
    """A row of the table in the documentation."""
    cells = (
        str(result.tables),
        f"{result.steps:,}",
        f"{result.seconds:.1f} s",
        f"{1e3 * result.cpu_per_step_s:.1f} ms",
        f"{1e3 * result.instant_step_s:.1f} ms",
        f"{result.commits / result.steps:.1f}",
        f"{1e3 * result.server_cpu_s / result.steps:.1f} ms",
        f"{result.peak_bytes / 1e6:.0f} MB",
        f"{result.check_s:.1f} s",
        f"{result.check_peak_bytes / 1e6:.0f} MB",
        f"{1e3 * result.status_cpu_s:.0f} ms",
    )
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| tables | steps | run | our CPU a step | an instant step | commits a step | server CPU a step"
    " | peak memory | `check` | its peak memory | CPU of `status --json` |\n|" + " ---: |" * 11
)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, nargs="+", default=[75, 300])
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--docs", action="store_true", help="write the section of docs/benchmarks.md")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with server() as made, tempfile.TemporaryDirectory() as folder:
        print(HEAD, flush=True)
        results = []
        for tables in given.tables:
            results.append(measure(made, tables, Path(folder)))
            print(line(results[-1]), flush=True)
        if given.json:
            print(json.dumps([asdict(r) for r in results], indent=2))
        if given.docs:
            write_section("tables", "\n".join([HEAD, *map(line, results), "", machine(made)]))


if __name__ == "__main__":
    main()
