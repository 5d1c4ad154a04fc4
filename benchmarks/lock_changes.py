"""Each change twice: by the online-migrate command, and by plain statements in psql."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import psycopg

from benchmarks.lock_traffic import Blocker, Hammer

CALM_S = 1.0
"""the application alone is measured for so long before each plain change: the machine's own latency"""
AFTER_S = 0.3
"""statements that waited behind the change have their answer by then, and are counted"""

PLAN = """
plan: bench
secrets: {}
stages:
  - {stage: tables, steps: [create_tables: context.sql]}
  - {stage: add_column, steps: [add_column: {table: t, column: bot_id, type: integer, new_rows: 1}]}
  - {stage: backfill, steps: [backfill: {table: t, column: bot_id, value: 1}]}
  - {stage: index, steps: [create_index: {table: t, name: idx_t_bot_id, columns: [bot_id]}]}
  - stage: unique
    steps: [create_index: {table: t, name: idx_t_bot_code, columns: [bot_id, code], unique: true}]
  - stage: foreign_key
    steps: [add_foreign_key: {table: t, column: bot_id, references: bots.id, on_delete: cascade}]
  - {stage: not_null, steps: [set_not_null: {table: t, column: bot_id}]}
  - {stage: drop_default, steps: [drop_default: {table: t, column: bot_id}]}
  - {stage: swap, steps: [swap_unique: {table: t, from: [code], to: idx_t_bot_code}]}
  - {stage: analyze, steps: [analyze: {table: t}]}
"""
DDL = "CREATE TABLE notes (id serial PRIMARY KEY, t_id bigint REFERENCES t (id));\n"
NAIVE = {
    "tables": DDL,
    "add_column": "ALTER TABLE t ADD COLUMN bot_id integer; ALTER TABLE t ALTER bot_id SET DEFAULT 1",
    "backfill": "UPDATE t SET bot_id = 1",
    "index": "CREATE INDEX ON t (bot_id)",
    "unique": "CREATE UNIQUE INDEX ON t (bot_id, code)",
    "foreign_key": "ALTER TABLE t ADD FOREIGN KEY (bot_id) REFERENCES bots ON DELETE CASCADE",
    "not_null": "ALTER TABLE t ALTER bot_id SET NOT NULL",
    "drop_default": "ALTER TABLE t ALTER bot_id DROP DEFAULT",
    "swap": "DROP INDEX t_code",
    "analyze": "ANALYZE t",
}
FILL = """
CREATE TABLE bots (id integer PRIMARY KEY); INSERT INTO bots VALUES (1);
CREATE TABLE t (id bigserial PRIMARY KEY, code text NOT NULL, amount bigint NOT NULL, state text NOT NULL,
    filler text) WITH (fillfactor = 90);
INSERT INTO t (code, amount, state, filler)
    SELECT 'c' || n, n, 'paid', repeat('x', 60) FROM generate_series(1, {rows}) n;
CREATE UNIQUE INDEX t_code ON t (code); VACUUM ANALYZE t"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """What the application noticed of one change."""

    change: str
    seconds: float
    longest_ms: float
    in_queue_ms: float
    """of that latency: the longest time in a lock's queue"""
    calm_ms: float
    """its longest latency right before, without the change: the machine's own.  For ours it is measured
    while ``online-migrate explain`` runs, which is as much work for the processors as run's beginning, and
    takes no lock."""
    errors: int
    windows: int = 0
    held_ms: float = 0.0
    """the longest hold of a window"""
    bound_ms: float = 0.0
    """the longest wait in the queue and hold of one window: what a statement may wait behind it"""


def fill(dsn: str, rows: int) -> None:
    """The table t, with a unique on code, and a parent."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in FILL.format(rows=rows).split(";"):
            connection.execute(statement.encode())


def felt_of_naive(dsn: str, rows: int) -> list[Felt]:
    """Plain statements, one after the other, beside the blocker."""
    found = []
    with Hammer(dsn, rows) as hammer, psycopg.connect(dsn, autocommit=True) as connection:
        for change, statements in NAIVE.items():
            calm_s = _calm(hammer)
            with Blocker(dsn):
                began = monotonic()
                hammer.mark()
                for statement in filter(str.strip, statements.split(";")):
                    connection.execute(statement.encode())
                seconds = monotonic() - began
                hammer.rest(AFTER_S)
            found.append(_felt(change, seconds, hammer, calm_s))
    return found


def felt_of_ours(dsn: str, rows: int, folder: Path, *, stages: tuple[str, ...] = tuple(NAIVE)) -> list[Felt]:
    """By ``online-migrate run --through STAGE``, one stage after the other, beside the same blocker."""
    plan = folder / "bench.yaml"
    plan.write_text(PLAN)
    (folder / "bench.sql").write_text(DDL)
    found = []
    with Hammer(dsn, rows) as hammer:
        for stage in stages:
            with Blocker(dsn):
                hammer.mark()
                call(dsn, plan, "explain")
                calm_s = hammer.longest_s
                began = monotonic()
                hammer.mark()
                call(dsn, plan, "run", "--through", stage)
                seconds = monotonic() - began
                hammer.rest(AFTER_S)
            found.append(_with_windows(_felt(stage, seconds, hammer, calm_s), dsn))
    return found


def call(dsn: str, plan: Path, command: str, *arguments: str) -> None:
    """``online-migrate COMMAND PLAN``; raises with its last output."""
    words = [sys.executable, "-m", "online_migrate.cli", command, str(plan), *arguments]
    environment = {**os.environ, "ONLINE_MIGRATE_DSN": dsn}
    result = subprocess.run(
        words, cwd=plan.parent, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(
            f"{command} {' '.join(arguments)} ended with {result.returncode}: {result.stderr[-2000:]}"
        )


def read_windows(dsn: str, stage: str | None = None) -> list[tuple[float, float]]:
    """(waited, held) of each window or attempt, in seconds, from the journal."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT coalesce((fields ->> 'waited_s')::float8, 0), (fields ->> 'held_s')::float8"
            " FROM online_migrate.history WHERE event IN ('lock_held', 'lock_attempt_failed')"
            " AND (%(stage)s::text IS NULL OR stage = %(stage)s)",
            {"stage": stage},
        ).fetchall()
    return [(waited, -1.0 if held is None else held) for waited, held in rows]


def _with_windows(felt: Felt, dsn: str) -> Felt:
    windows = read_windows(dsn, felt.change)
    held = [h for _, h in windows if h >= 0]
    bound_s = max((w + max(h, 0.0) for w, h in windows), default=0.0)
    return replace(
        felt,
        windows=len(held),
        held_ms=round(max(held, default=0.0) * 1000, 1),
        bound_ms=round(bound_s * 1000, 1),
    )


def _calm(hammer: Hammer) -> float:
    hammer.mark()
    hammer.rest(CALM_S)
    return hammer.longest_s


def _felt(change: str, seconds: float, hammer: Hammer, calm_s: float) -> Felt:
    errors, hammer.errors = len(hammer.errors), []
    return Felt(
        change=change,
        seconds=round(seconds, 2),
        longest_ms=round(hammer.longest_s * 1000, 1),
        in_queue_ms=round(hammer.in_queue_s * 1000, 1),
        calm_ms=round(calm_s * 1000, 1),
        errors=errors,
    )
