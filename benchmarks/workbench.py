"""A backfill of one table without a plan: the journal, a fence, and a runner's connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from online_migrate.backfill.context import BackfillContext
from online_migrate.clock import Clock, Signal, SystemClock
from online_migrate.events import Event
from online_migrate.journal.fence import Fence
from online_migrate.journal.schema import ensure_schema
from online_migrate.journal.store import Key
from online_migrate.plan.model import HoldWhen, LockRules, Pace, Plan, Requires
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.run import RunContext, WorkerContext

UNTHROTTLED = Pace.model_construct(duty=1.0)
"""the default batch, no pause"""


@dataclass(slots=True, kw_only=True)
class Heard:
    """Every event of a backfill, in order."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event_type: Callable[..., Event], **fields: Any) -> None:
        self.events.append(event_type(**fields))

    def of(self, name: str) -> list[Any]:
        """The events of a name: ``batch_done``."""
        return [e for e in self.events if e.name == name]


def key_of(table: str) -> Key:
    """The step's key in the journal."""
    return ("backfill", "backfill c", table)


def begin_journal(connection: Connection, tables: list[str]) -> tuple[int, Fence]:
    """Create the journal, a run with a backfill step for each table, and our fence."""
    ensure_schema(connection)
    holder = str(uuid4())
    row = connection.execute(
        "UPDATE online_migrate.epoch SET epoch = epoch + 1, holder = %s RETURNING epoch", [holder]
    ).fetchone()
    assert row is not None  # schema.sql puts its one row there
    run = connection.execute(
        "INSERT INTO online_migrate.run (plan, fingerprint, parts, state)"
        " VALUES (%s, '', '{}', 'running') RETURNING run_id",
        [f"plan {holder}"],
    ).fetchone()
    assert run is not None  # RETURNING of one row
    for position, table in enumerate(tables):
        connection.execute(
            "INSERT INTO online_migrate.step (run_id, position, stage, step, table_name)"
            " VALUES (%s, %s, %s, %s, %s)",
            [run[0], position, *key_of(table)],
        )
    return int(run[0]), Fence(epoch=int(row[0]), holder=holder)


@contextmanager
def workbench(  # noqa: PLR0913  # each is a seam that a test replaces
    dsn: str,
    table: str,
    *,
    begun: tuple[int, Fence] | None = None,
    pace: Pace = UNTHROTTLED,
    hold_when: HoldWhen | None = None,
    locks: LockRules | None = None,
    emit: Callable[..., None] = lambda *_, **__: None,
    clock: Clock | None = None,
    signal: Signal | None = None,
) -> Iterator[BackfillContext]:
    """Open the sessions of a runner; ``begun`` continues a run of :func:`begin_journal`."""
    locks = locks or LockRules()
    run = RunContext.create(
        _plan_with(locks),
        Connector(dsn=dsn),
        clock=clock or SystemClock(),
        signal=signal or Signal(),
        sink=_Emitter(emit),
        secrets=Secrets({}, {}),
        show_secret=lambda *_: "nowhere",
    )
    run.sessions.open()
    try:
        run.run_id, run.lease.fence = begun or begin_journal(run.sessions.journal, [table])
        yield BackfillContext(
            run=run,
            worker=WorkerContext(work=run.sessions.work, signal=run.signal),
            key=key_of(table),
            plan_pace=pace,
            hold_when=hold_when or HoldWhen(),
        )
    finally:
        run.sessions.close()


def _plan_with(locks: LockRules) -> Plan:
    """A plan of which only its schema and its locks count."""
    return Plan(
        name="bench",
        requires=Requires(),
        schema="public",
        secrets={},
        table_sets={},
        locks=locks,
        stages=(),
        path=Path("bench.yaml"),
    )


@dataclass(frozen=True, slots=True)
class _Emitter:
    """A sink that hands each event on by its type and its fields, the place left out."""

    emit_fields: Callable[..., None]

    def emit(self, event: Event) -> None:
        names = [f.name for f in fields(event) if f.name not in {"stage", "step", "table"}]
        self.emit_fields(type(event), **{name: getattr(event, name) for name in names})
