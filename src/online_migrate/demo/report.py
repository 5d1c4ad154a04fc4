"""The report of the demo: measured numbers, for the screen and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from online_migrate.demo.checks import Check
from online_migrate.demo.operate import Kill
from online_migrate.demo.traffic import Summary
from online_migrate.journal.records import HistoryRecord

LOCK_EVENTS: Final = ("lock_held", "lock_attempt_failed")
"""the events that :class:`Locks` is computed from"""

_FAILURES_KEPT: Final = 20
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Locks:
    """Strong locks, as the runner's lock windows measured them."""

    longest_hold_ms: float = 0.0
    longest_application_wait_ms: float = 0.0
    """the longest that an application statement can have waited behind a lock request, hold included"""
    windows: int = 0
    """windows that committed"""
    failed_attempts: int = 0
    """attempts that were rolled back because the lock was not acquired in time"""

    @classmethod
    def of(cls, history: tuple[HistoryRecord, ...]) -> Locks:
        """From the events lock_held and lock_attempt_failed."""
        holds = [_seconds(h, "held_s") for h in history if h.event == "lock_held"]
        waits = [_seconds(h, "waited_s") + _seconds(h, "held_s") for h in history if h.event in LOCK_EVENTS]
        return cls(
            longest_hold_ms=max(holds, default=0.0) * 1000,
            longest_application_wait_ms=max(waits, default=0.0) * 1000,
            windows=len(holds),
            failed_attempts=len(waits) - len(holds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of all tables and of all their indexes in schema public."""

    tables: int
    indexes: int

    @classmethod
    def read(cls, connection: psycopg.Connection, tables: tuple[str, ...]) -> Sizes:
        """Of these tables, with their TOAST; raises psycopg.errors.UndefinedTable."""
        names = sql.SQL(", ").join(sql.SQL("{}::regclass").format(sql.Literal(t)) for t in tables)
        row = connection.execute(
            sql.SQL(
                "SELECT sum(pg_table_size(t))::bigint, sum(pg_indexes_size(t))::bigint FROM"
                " unnest(ARRAY[{}]) AS t"
            ).format(names)
        ).fetchone()
        assert row is not None
        return cls(tables=row[0], indexes=row[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The end of a demo.  Times are ms but for ``seconds``, sizes bytes."""

    plan: str
    server_version: str
    users: int
    rows: int
    seconds: float
    """from the plan's first statement to its last, gates and kills included"""
    stages: Mapping[str, int]
    """finished steps of each stage"""
    transactions: Mapping[str, Summary]
    """by period: before, during, after"""
    failures: tuple[str, ...]
    plan_invalidations: int
    locks: Locks
    wal_bytes: int
    before: Sizes
    after: Sizes
    checks: tuple[Check, ...]
    seed: int
    interrupted: tuple[Kill, ...]

    @property
    def failed_transactions(self) -> int:
        """Transactions of the application that failed, in all periods."""
        return len(self.failures)

    @property
    def ok(self) -> bool:
        """No transaction failed and every check holds."""
        return not self.failures and all(check.ok for check in self.checks)

    def to_json(self) -> str:
        """The report as JSON, for programs."""
        record: dict[str, Any] = {
            "plan": self.plan,
            "ok": self.ok,
            "server_version": self.server_version,
            "users": self.users,
            "rows": self.rows,
            "seconds": round(self.seconds, 1),
            "stages": dict(self.stages),
            "failed_transactions": self.failed_transactions,
            "failures": self.failures[:_FAILURES_KEPT],
            "transactions": {name: _summary(summary) for name, summary in self.transactions.items()},
            "plan_invalidations": self.plan_invalidations,
            "locks": {k: round(v, 1) for k, v in asdict(self.locks).items()},
            "wal_bytes": self.wal_bytes,
            "growth": {
                "tables_before": self.before.tables,
                "tables_after": self.after.tables,
                "indexes_before": self.before.indexes,
                "indexes_after": self.after.indexes,
            },
            "checks": [asdict(check) for check in self.checks],
            "seed": self.seed,
            "interrupted": [asdict(kill) for kill in self.interrupted],
        }
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"

    def lines(self) -> list[str]:
        """The report for the screen."""
        killed = f", killed {len(self.interrupted)} times and resumed" if self.interrupted else ""
        done = (
            f"{sum(self.stages.values())} steps in {len(self.stages)} stages, in {self.seconds:.0f} s{killed}"
        )
        shop = f"{self.users:,} users, {self.rows:,} rows, PostgreSQL {self.server_version}"
        return [
            f"Done                {self.plan}: {done}",
            f"Shop                {shop}",
            *self._application(),
            *self._database(),
            *(f"Killed              in {k.stage}, after {k.statements} statements" for k in self.interrupted),
            "",
            *(f"{'✓' if c.ok else '✗ FAILED:'} {c.name}: {c.detail}" for c in self.checks),
            "",
            "No transaction failed and every check holds."
            if self.ok
            else "The demo FAILED: see the lines above.",
        ]

    def _application(self) -> list[str]:
        rows = [
            (
                f"  {name:<18}{s.transactions:>12,}{s.failures:>10,}{s.p50_ms:>10.1f}"
                f"{s.p99_ms:>10.1f}{s.longest_ms:>10.1f}"
            )
            for name, s in self.transactions.items()
        ]
        return [
            "",
            "Application         transactions  failures    p50 ms    p99 ms   longest",
            *rows,
            *(f"  FAILED {failure}" for failure in self.failures[:_FAILURES_KEPT]),
            f"  prepared SELECT * refused and prepared again: {self.plan_invalidations} (plan invalidations)",
            "",
        ]

    def _database(self) -> list[str]:
        locks, before, after = self.locks, self.before, self.after
        return [
            f"Strong locks        {locks.windows} lock windows, {locks.failed_attempts} attempts timed out",
            f"  longest held      {locks.longest_hold_ms:.1f} ms",
            f"  application waits {locks.longest_application_wait_ms:.1f} ms at most",
            f"WAL                 {format_bytes(self.wal_bytes)}, including the application's",
            f"Tables              {format_bytes(before.tables)} before, {format_bytes(after.tables)} after",
            f"Indexes             {format_bytes(before.indexes)} before, {format_bytes(after.indexes)} after",
        ]


def format_bytes(size: float) -> str:
    """``12345678`` → ``11.8 MB``, by powers of 1024 as PostgreSQL does."""
    step = 0
    while size >= 1024 and step < len(_UNITS) - 1:
        size, step = size / 1024, step + 1
    return f"{size:.1f} {_UNITS[step]}" if step else f"{size:.0f} B"


def _seconds(record: HistoryRecord, name: str) -> float:
    return float(str(record.fields.get(name, 0.0)))


def _summary(summary: Summary) -> dict[str, float]:
    return {
        "count": summary.transactions,
        "failures": summary.failures,
        "p50_ms": round(summary.p50_ms, 2),
        "p99_ms": round(summary.p99_ms, 2),
        "longest_ms": round(summary.longest_ms, 2),
    }
