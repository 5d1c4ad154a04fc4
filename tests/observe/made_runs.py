"""Runs that tests bring: a small plan, its journal in a real database, and the events of a whole run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from online_migrate import events as e
from online_migrate.backfill.throttlers.standby_lag import Standby
from online_migrate.clock import Signal, SystemClock
from online_migrate.journal.lease import Lease
from online_migrate.journal.records import CursorRecord, HistoryRecord
from online_migrate.journal.schema import ensure_schema
from online_migrate.journal.store import Journal
from online_migrate.observe.prometheus.readings import ServerReading, TableReading
from online_migrate.observe.snapshot.views import Snapshot, StageView, StepView, WaitView
from online_migrate.plan.model import (
    Gate,
    HoldWhen,
    LockRules,
    Pace,
    Phase,
    Plan,
    Requires,
    Stage,
    Step,
    StepSpec,
    Strict,
)
from online_migrate.postgres.connection import Connector

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
BACKFILL = ("fill", "backfill bot_id", "users")


def make_plan(tables: tuple[str, ...] = ("users", "orders")) -> Plan:
    """Four stages: one without tables, one over them, a backfill, and one behind a gate."""
    return Plan(
        name="shop",
        requires=Requires(),
        schema="public",
        secrets={},
        table_sets={},
        locks=LockRules(),
        stages=(
            _stage("tables", Phase.EXPAND, ("create_tables",)),
            _stage("columns", Phase.EXPAND, ("add_column bot_id",)),
            _stage("fill", Phase.BACKFILL, ("backfill bot_id",)),
            _stage(
                "swap", Phase.CONTRACT, ("drop_default bot_id",), Gate(approval="the new release is live")
            ),
        ),
        path=Path("shop.yaml"),
    )


def _stage(name: str, phase: Phase, titles: tuple[str, ...], gate: Gate | None = None) -> Stage:
    specs = tuple(
        StepSpec(operation=title.split(" ", 1)[0], title=title, params=Strict(), where="shop.yaml:1:1")
        for title in titles
    )
    return Stage(
        name=name,
        phase=phase,
        gate=gate,
        pace=Pace(),
        hold_when=HoldWhen(),
        steps=specs,
        where="shop.yaml:1:1",
    )


def make_steps(plan: Plan, tables: tuple[str, ...] = ("users", "orders")) -> tuple[Step, ...]:
    """Every step over every table; the first stage's has none."""
    return tuple(
        Step(stage=stage.name, spec=spec, table=table)
        for stage in plan.stages
        for spec in stage.steps
        for table in ((None,) if stage.name == "tables" else tables)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRun:
    """A run that has begun, its lease held."""

    connector: Connector
    journal: Journal
    lease: Lease
    run_id: int

    def tell(self, *events: e.Event) -> None:
        for event in events:
            self.journal.append_history(self.run_id, event)

    def put_cursor(self, **changes: object) -> None:
        self.journal.write_cursor(self.run_id, make_cursor(**changes))


@contextmanager
def begun_run(dsn: str) -> Iterator[MadeRun]:
    """A run of :func:`make_plan`, written to the journal of that database by the journal's own code."""
    connector = Connector(dsn=dsn)
    lease = Lease(connector, SystemClock(), Signal(), "shop")
    with connector.open("test") as connection:
        ensure_schema(connection)
        fence = lease.acquire()
        try:
            journal = Journal(connection, fence)
            plan = make_plan()
            run_id = journal.begin_run(plan, {"owned": ("users", "orders")}, make_steps(plan))
            yield MadeRun(connector=connector, journal=journal, lease=lease, run_id=run_id)
        finally:
            lease.release()


def make_cursor(**changes: object) -> CursorRecord:
    """A cursor at the beginning of a walk over 1,000 pages in chunks of 100, four stripes."""
    facts: dict[str, object] = {
        "stage": BACKFILL[0], "step": BACKFILL[1], "table": BACKFILL[2], "column": "bot_id", "value": "1",
        "pass_name": "interleaved", "relfilenode": 1, "pages_total": 1_000, "chunk_pages": 100, "stripes": 4,
        "chunk": 0, "stripe": 0, "slice": 0, "rows_done": 0, "batches": 0, "moved_at": NOON,
    }  # fmt: skip
    return CursorRecord(**(facts | changes))  # type: ignore[arg-type]


def make_record(event: e.Event, at: datetime = NOON) -> HistoryRecord:
    """An event as the journal would give it back."""
    fields = {k: v for k, v in event.fields().items() if k not in {"stage", "step", "table"}}
    return HistoryRecord(
        at=at, event=event.name, stage=event.stage, step=event.step, table=event.table, fields=fields
    )


def batch(table: str = "users", **changes: object) -> e.BatchDone:
    """A batch of 500 rows that took 50 ms."""
    facts: dict[str, object] = {
        "stage": "fill", "step": "backfill bot_id", "table": table, "rows": 500, "pages": 10, "seconds": 0.05,
        "pause_s": 0.05, "rows_done": 500, "share_done": 0.25, "eta_s": 12.0,
    }  # fmt: skip
    return e.BatchDone(**(facts | changes))  # type: ignore[arg-type]


def started(table: str = "users", rows_done: int = 0, pages_done: int = 0) -> e.BackfillStarted:
    """A pass over 1,000 pages and 10,000 rows begins, or goes on."""
    return e.BackfillStarted(
        stage="fill", step="backfill bot_id", table=table, pass_name="interleaved", stripes=4, chunk_pages=100,
        pages_done=pages_done, pages_total=1_000, rows_expected=10_000, rows_done=rows_done, reason="no index on bot_id",
    )  # fmt: skip


def whole_run() -> Iterator[e.Event]:
    """One event of every kind, in an order that could be."""
    yield e.RunStarted(plan="shop", run_id=7, resumed=False, steps_total=7, steps_done=0)
    yield e.CheckFound(
        severity="warn",
        fact="a prepared SELECT * fails once",
        where="add_column / users",
        remedy="name columns",
    )
    yield e.StageStarted(stage="columns", phase="expand")
    column: Any = {"stage": "columns", "step": "add_column bot_id", "table": "users"}
    yield e.StepStarted(**column, resumed=False)
    yield e.WaitStarted(**column, kind="blocker", reason="pid 12 has been in a transaction for 4 s")
    yield e.BlockersSeen(**column, waiting_for="users", blockers=("pid 12",))
    yield e.WaitContinues(
        **column, kind="blocker", reason="pid 13 has been in a transaction for 5 s", seconds=3.0
    )
    yield e.WaitEnded(**column, kind="blocker", seconds=4.0)
    yield e.LockAttemptFailed(
        **column, relation="users", lock="ACCESS EXCLUSIVE", attempt=1, waited_s=0.05, pause_s=0.2,
        reason="lock timeout", blockers=("pid 13",),
    )  # fmt: skip
    yield e.LockHeld(
        **column, relation="users", lock="ACCESS EXCLUSIVE", attempts=2, waited_s=0.05, held_s=0.004
    )
    yield e.StepEnded(**column, outcome="done", seconds=4.5)
    yield e.StageEnded(stage="columns", seconds=5.0)
    yield e.StageStarted(stage="fill", phase="backfill")
    fill: Any = {"stage": "fill", "step": "backfill bot_id", "table": "users"}
    yield e.StepStarted(**fill, resumed=False)
    yield started()
    yield e.Reading(throttler="standby_lag", utilisation=0.4, reason="26 of 64 MiB", age_s=0.3)
    yield batch(rows=2_500, rows_done=2_500)
    yield batch(rows=2_500, rows_done=5_000, share_done=0.5, eta_s=6.0, skipped_locked=True)
    yield e.Retried(**fill, kind="connection", attempt=1, error="server closed the connection", pause_s=1.0)
    yield e.Reconnected(seconds=1.2)
    yield e.LateRows(**fill, rows=3, more=False)
    yield e.StepEnded(**fill, outcome="done", seconds=9.0, rows=10_000)
    index: Any = {"stage": "fill", "step": "create_index", "table": "users"}
    yield e.LongStatement(
        **index, statement="CREATE INDEX CONCURRENTLY i ON users (bot_id)", phase="building index",
        share_done=0.3, seconds=2.0, waits_for=("pid 14",),
    )  # fmt: skip
    yield e.StatementExecuted(
        **index, statements=("CREATE INDEX CONCURRENTLY i ON users (bot_id)",), kind="long", seconds=3.0
    )
    yield e.StepFailed(**index, error="could not create unique index")
    yield e.StepReopened(**index, by="ada", note="dropped by mistake")
    yield e.PlanAccepted(by="ada", changes=("stage swap, step analyze: was added",))
    yield e.SecretShown(secret="api_token", where="the terminal")
    yield e.StopAsked(**column, reason="SIGINT")
    yield e.Note(message="orders was rewritten")
    yield e.GateWaiting(stage="swap", approval="the new release is live")
    yield e.GateApproved(stage="swap", approved_by="ada")
    yield e.RunEnded(outcome="stopped", exit_code=130, seconds=20.0)


def make_reading(
    *, tables: Iterable[str] = ("users",), updates: int = 50, **changes: object
) -> ServerReading:
    """A server with one standby, and so many updates in each table."""
    facts: dict[str, object] = {
        "wal_bytes": 1_000, "epoch": 3, "connections": 6, "multixacts": {"age": 0.1, "members": 0.01},
        "standbys": (Standby(name="b", lag_bytes=100, lag_s=0.5),),
        "tables": tuple(
            TableReading(
                table=table, updates=updates, hot_updates=updates // 2, dead_rows=3, table_bytes=8_192, index_bytes=16_384
            )
            for table in tables
        ),
    }  # fmt: skip
    return ServerReading(**(facts | changes))  # type: ignore[arg-type]


def make_snapshot(tables: tuple[str, ...] = ("users", "orders"), **changes: object) -> Snapshot:
    """A snapshot of :func:`make_plan` in the middle of its backfill of the first table."""
    facts: dict[str, object] = {
        "plan": "shop", "state": "running", "reason": "", "run_id": 7, "started_at": NOON, "ended_at": None,
        "read_at": NOON.replace(minute=2, second=5), "holder": None, "is_live": True, "waits": (), "history": (),
        "stages": (
            _view("tables", "expand", "done", [_step_view("tables", "create_tables", "", "done")]),
            _view("columns", "expand", "done", [_step_view("columns", "add_column", t, "done") for t in tables]),
            _view("fill", "backfill", "running", [_filling(t, is_first=t == tables[0]) for t in tables]),
            _view("swap", "contract", "pending", [_step_view("swap", "drop_default", t, "pending") for t in tables]),
        ),
    }  # fmt: skip
    return Snapshot(**(facts | changes))  # type: ignore[arg-type]


LONG_REASON = (
    "canceling statement due to lock timeout: public.{0} is locked: pid 4711 (reports, application"
    " nightly-report) holds"
    " ACCESS EXCLUSIVE on {0} since 12 min 04 s, state idle in transaction: LOCK TABLE {0} IN ACCESS"
    " EXCLUSIVE MODE"
)
"""what the engine says of a locked table"""


def make_crowd(
    tables: tuple[str, ...], *, passed: int = 20, moving: int = 4, locked: int = 2, held: int = 1
) -> Snapshot:
    """Tables side by side, in the plan's order: some have passed, some move, some
    wait; the rest is pending.
    """
    snapshot = make_snapshot(tables)
    users = snapshot.stages[2].steps[0]
    kinds = [*["passed"] * passed, *["moving"] * moving, *["table_lock"] * locked, *["standby_lag"] * held]
    waits, steps = list[WaitView](), list[StepView]()
    for table, kind in zip_longest(tables, kinds, fillvalue=""):
        step = _step_view("fill", "backfill bot_id", table, "pending", rows_expected=2_000, share_done=0.0)
        if kind == "passed":
            note = "all pages are filled; the proof starts when the other tables are filled"
            changes: dict[str, Any] = {
                "share_done": 1.0,
                "rate": None,
                "eta_s": None,
                "is_passed": True,
                "is_parked": True,
            }
            step = replace(users, table=table, reason=note, **changes)
        elif kind == "moving":
            step = replace(users, table=table)
        elif kind:
            reason = (
                LONG_REASON.format(table)
                if kind == "table_lock"
                else "b replays 120 MiB of WAL later: more than 64 MiB"
            )
            step = replace(users, table=table, rate=None, eta_s=None, reason=reason)
            waits.append(
                WaitView(
                    kind=kind, reason=reason, since=NOON, stage="fill", step="backfill bot_id", table=table
                )
            )
        steps.append(step)
    stage = replace(snapshot.stages[2], steps=tuple(steps))
    return replace(snapshot, stages=(*snapshot.stages[:2], stage, snapshot.stages[3]), waits=tuple(waits))


def _view(name: str, phase: str, state: str, steps: list[StepView]) -> StageView:
    return StageView(stage=name, phase=phase, state=state, reason="", steps=tuple(steps))


def _step_view(stage: str, step: str, table: str, state: str, **changes: object) -> StepView:
    facts: dict[str, object] = {
        "stage": stage, "step": step, "table": table, "state": state, "rows_done": 0, "rows_expected": None,
        "share_done": 1.0 if state == "done" else None, "rate": None, "eta_s": None, "seconds": None, "reason": "",
    }  # fmt: skip
    return StepView(**(facts | changes))  # type: ignore[arg-type]


def _filling(table: str, *, is_first: bool) -> StepView:
    if not is_first:
        return _step_view("fill", "backfill bot_id", table, "pending", rows_expected=2_000, share_done=0.0)
    return _step_view(
        "fill", "backfill bot_id", table, "running", rows_done=45_000, rows_expected=100_000, share_done=0.453,
        rate=96_000.0, eta_s=3.0, seconds=4.0,
    )  # fmt: skip
