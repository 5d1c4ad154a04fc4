"""What the parts of one run share: a :class:`RunContext`, and of it what one worker has while it takes one
step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from online_migrate.clock import Clock, Signal
from online_migrate.errors import Interrupted, LeaseLost
from online_migrate.events import Event, Note, Sink
from online_migrate.journal.fence import Fence
from online_migrate.journal.lease import Lease
from online_migrate.journal.sessions import Sessions
from online_migrate.journal.steering import JournalSteering, Limits, Steering
from online_migrate.journal.store import Journal, Key
from online_migrate.plan.model import LockRules, Plan
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.postgres.ladder import Exposure
from online_migrate.postgres.standbys import Standbys


@dataclass(slots=True, kw_only=True)
class RunContext:
    """One run of one plan on one database."""

    plan: Plan
    sessions: Sessions
    lease: Lease
    clock: Clock
    signal: Signal
    """stops the run; each worker has a child of it"""
    sink: Sink
    secrets: Secrets
    show_secret: Callable[[str, str], str]
    """hands a generated secret over (name, value); returns where it was shown"""
    locks: LockRules
    standbys: Standbys
    """the standbys that the plan names, where ACCESS EXCLUSIVE is replayed"""
    steering: Steering
    """what operators ask of the run from other hosts"""
    exposure: Exposure = field(default_factory=Exposure)
    """for how long application statements could have waited behind our lock requests in this run"""
    run_id: int = 0
    """set by the runner as soon as the journal has the run"""

    @classmethod
    def create(  # all by name, each a thing of its own
        cls,
        plan: Plan,
        connector: Connector,
        *,
        clock: Clock,
        signal: Signal,
        sink: Sink,
        secrets: Secrets,
        show_secret: Callable[[str, str], str],
        limits: Limits = Limits(),  # noqa: B008  # it is immutable
    ) -> RunContext:
        """A context whose sessions are not open and whose lease is not acquired yet."""

        def emit(event_type: type[Event], **fields: Any) -> None:
            sink.emit(event_type(**fields))

        sessions = Sessions(connector=connector, signal=signal, emit=emit, clock=clock)
        say = lambda text: emit(Note, message=text)  # noqa: E731  # too short for a name of its own
        return cls(
            plan=plan,
            sessions=sessions,
            lease=Lease(connector, clock, signal, plan.name, say=say, emit=emit),
            clock=clock,
            signal=signal,
            sink=sink,
            secrets=secrets,
            show_secret=show_secret,
            locks=plan.locks,
            standbys=Standbys(connector=connector, names=plan.locks.standbys),
            steering=JournalSteering(
                sessions,
                clock,
                plan=plan.name,
                path=str(plan.path),
                emit=emit,
                limits=limits,
                hours=plan.hours,
            ),
        )

    @property
    def fence(self) -> Fence:
        return self.lease.fence

    @property
    def journal(self) -> Journal:
        """The journal, on the session that is open now."""
        return Journal(self.sessions.journal, self.fence)

    def emit(self, event_type: type[Event], **fields: Any) -> None:
        self.sink.emit(event_type(**fields))

    def is_stop_requested(self) -> bool:
        """Is the run to stop, by a request or because its time is over?  The run's signal is set then,
        so that all its workers stop.
        """
        reason = self.steering.read_stop()
        if reason is not None and self.steering.is_aborted():
            self.signal.abort(reason)
        elif reason is not None:
            self.signal.stop(reason)
        return reason is not None

    def ensure_going(self, signal: Signal, where: str) -> float:
        """Wait while the plan is paused, and return the seconds that took; no transaction may be open.

        Raises :class:`LeaseLost`, or :class:`Interrupted` if a stop was asked for; ``where`` says where the
        run is: before what, or after what.
        """

        def ensure() -> None:
            if self.lease.lost:
                raise LeaseLost(self.lease.lost)
            if signal.is_stopping or self.is_stop_requested():
                raise Interrupted(f"stopped {where}: {signal.reason}")

        ensure()
        return self.steering.wait_while_paused(signal, ensure)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """What a worker has of its own."""

    work: Connection
    """runs its statements"""
    signal: Signal
    """stops it"""
    share: Callable[[], float] = lambda: 1.0
    """its share of the stage's pace now, 0…1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What one worker works with while it takes one step."""

    run: RunContext
    worker: WorkerContext
    key: Key

    @property
    def work(self) -> Connection:
        """Runs DDL and batches."""
        return self.worker.work

    @property
    def watch(self) -> Connection:
        """Reads about other sessions while ``work`` is busy."""
        return self.run.sessions.watch

    @property
    def signal(self) -> Signal:
        return self.worker.signal

    @property
    def clock(self) -> Clock:
        return self.run.clock

    @property
    def journal(self) -> Journal:
        return self.run.journal

    @property
    def run_id(self) -> int:
        return self.run.run_id

    @property
    def fence(self) -> Fence:
        return self.run.fence

    @property
    def locks(self) -> LockRules:
        return self.run.locks

    @property
    def schema(self) -> str:
        return self.run.plan.schema

    @property
    def is_stopping(self) -> bool:
        return self.signal.is_stopping or self.run.is_stop_requested()

    def is_wanted(self) -> bool:
        """Is the long statement that runs now still wanted?  Not after an abort, from whichever host."""
        with suppress(psycopg.Error):  # a lost session ends no statement; the next read of ours reports it
            self.run.is_stop_requested()
        return not self.signal.is_aborting

    def ensure_going(self, where: str = "after a batch") -> float:
        """See :meth:`RunContext.ensure_going`."""
        return self.run.ensure_going(self.signal, where)

    def emit(self, event_type: type[Event], **fields: Any) -> None:
        """Emit an event of this step."""
        stage, step, table = self.key
        self.run.sink.emit(event_type(stage=stage, step=step, table=table, **fields))
