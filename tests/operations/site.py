"""A run of a plan on a filled shop, held before one of its steps: an operation is given what the engine would
give it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from online_migrate.clock import Signal, SystemClock
from online_migrate.demo.dump import rows_digest, schema_dump
from online_migrate.engine.check.contradictions import find_contradictions, findings_of
from online_migrate.engine.survey import resolve_sets
from online_migrate.events import Event
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.journal.schema import ensure_schema
from online_migrate.journal.sessions import Sessions
from online_migrate.journal.store import Journal
from online_migrate.operations.contract.base import (
    Context,
    Operation,
    Place,
    State,
)
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.operations.shared.preflight import preflight
from online_migrate.plan.expand import expand
from online_migrate.plan.load import load
from online_migrate.plan.model import Plan, Step
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.run import RunContext, WorkerContext

PLANS = Path(__file__).parents[2] / "plans"
E = TypeVar("E", bound=Event)


@dataclass(slots=True)
class Recorder:
    """A Sink that keeps what it hears."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [e for e in self.events if isinstance(e, kind)]


def nobody_looks(name: str, value: str) -> str:
    """Where a secret goes that the test does not ask for."""
    return f"nowhere ({name}, {len(value)} characters)"


@dataclass(slots=True, kw_only=True)
class Site:
    """The last step of the plan is the one under test, unless another is named."""

    run: RunContext
    steps: tuple[Step, ...]
    heard: Recorder
    app: psycopg.Connection[tuple[Any, ...]]
    """a session that is none of ours: the application's, or the test's own eyes"""

    @property
    def plan(self) -> Plan:
        return self.run.plan

    @property
    def sessions(self) -> Sessions:
        return self.run.sessions

    @property
    def signal(self) -> Signal:
        return self.run.signal

    @property
    def run_id(self) -> int:
        return self.run.run_id

    @property
    def journal(self) -> Journal:
        return self.run.journal

    @property
    def work_pid(self) -> int:
        return self.sessions.work.info.backend_pid

    # the contract of an operation, as the engine calls it

    def step(self, operation: str | None = None, table: str | None = None) -> Step:
        """The last step of that operation, on that table."""
        wanted = [s for s in self.steps if operation in (None, s.spec.operation) and table in (None, s.table)]
        return wanted[-1]

    def operation(self, step: Step | None = None) -> Operation[Any]:
        return OPERATIONS[(step or self.step()).spec.operation]

    def place(self, step: Step | None = None) -> Place:
        """With a catalog that has read nothing yet, as after every step of a run."""
        return Place(
            plan=self.plan,
            step=step or self.step(),
            catalog=Catalog(self.sessions.work, self.plan.schema),
            references=self.journal.read_references(self.run_id),
            journal=self.journal,
            run_id=self.run_id,
            effects=effects_of(self.plan, self.steps),
        )

    def context(self, step: Step | None = None, place: Place | None = None) -> Context:
        step = step or self.step()
        stage = self.plan.stage(step.stage)
        assert stage is not None
        return Context(
            run=self.run,
            worker=WorkerContext(work=self.sessions.work, signal=self.signal),
            key=step.key,
            place=place or self.place(step),
            pace=stage.pace,
            hold_when=stage.hold_when,
        )

    def state(self, step: Step | None = None) -> State:
        step = step or self.step()
        return self.operation(step).state(self.place(step), step.spec.params)

    def preflight(self, step: Step | None = None) -> list[Finding]:
        step = step or self.step()
        return preflight(self.operation(step), self.place(step), step.spec.params)

    def stops(self, step: Step | None = None) -> list[Finding]:
        """The findings that keep a run from beginning."""
        return [f for f in self.preflight(step) if f.severity is Severity.STOP]

    def contradictions(self) -> list[Finding]:
        """What `check` says of the plan's steps together."""
        effects = effects_of(self.plan, self.steps)
        return findings_of(find_contradictions(effects, Catalog(self.sessions.work, self.plan.schema)))

    def execute(self, step: Step | None = None) -> int:
        step = step or self.step()
        return self.operation(step).execute(self.context(step), step.spec.params)

    def verify(self, step: Step | None = None) -> list[Finding]:
        step = step or self.step()
        return self.operation(step).verify(self.place(step), step.spec.params)

    def execute_all(self, *, before: Step | None = None) -> None:
        """Every step in order; with ``before``, up to that one."""
        for step in self.steps:
            if step is before:
                return
            self.execute(step)

    # the world

    def sql(self, statements: str) -> list[tuple[Any, ...]]:
        """Run as the application, or as an operator beside us; the rows of the last statement, if any."""
        cursor = self.app.execute(statements.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []

    def one(self, query: str) -> Any:
        """The one value of a query."""
        return self.sql(query)[0][0]

    def schema(self) -> str:
        """The whole schema but the journal's."""
        return schema_dump(self.app)

    def rows(self) -> dict[str, str]:
        """A digest of each table's rows."""
        return rows_digest(self.app)


@contextmanager
def open_site(
    dsn: str,
    text: str,
    *,
    folder: Path = PLANS,
    environ: Mapping[str, str] | None = None,
    show_secret: Callable[[str, str], str] = nobody_looks,
    references: Mapping[str, str] | None = None,
    role: str = "",
) -> Iterator[Site]:
    """Begin a run of the plan ``text`` with the real sessions, lease and journal, and execute nothing.

    ``role`` is who we are, the tests' superuser where it is empty; ``references`` are known as by an earlier
    step.
    """
    plan = load(text, OPERATIONS, path=folder / "harness.yaml")
    ours = make_conninfo(dsn, options=f"-c role={role}") if role else dsn
    connector, signal, clock, heard = (
        Connector(dsn=ours, schema=plan.schema),
        Signal(),
        SystemClock(),
        Recorder(),
    )
    with connector.open("check") as connection:
        sets = resolve_sets(plan, Catalog(connection, plan.schema).foreign_keys())
        ensure_schema(connection)
    run = RunContext.create(
        plan,
        connector,
        clock=clock,
        signal=signal,
        sink=heard,
        secrets=Secrets(plan.secrets, environ or {}),
        show_secret=show_secret,
    )
    try:
        run.lease.acquire()
        run.sessions.open()
        with psycopg.connect(dsn, autocommit=True, application_name="shop") as app:
            steps = expand(plan, sets, OPERATIONS)
            run.run_id = run.journal.begin_run(plan, sets, steps)
            for name, value in (references or {}).items():
                run.journal.write_reference(run.run_id, name, value)
            yield Site(run=run, steps=steps, heard=heard, app=app)
    finally:
        run.sessions.close()
        run.lease.release()


def plan_of(*steps: str, head: str = "", stage: str = "", name: str = "harness") -> str:
    """A plan of one stage with these steps; ``head`` are further keys of the plan, ``stage`` of the stage.

    Of a name only one run can be open in a database.
    """
    lines = "".join(f"      - {step}\n" for step in steps)
    return f"plan: {name}\n{head}\nstages:\n  - stage: here\n    {stage}\n    steps:\n{lines}"


def replaced(context: Context, **changes: Any) -> Context:
    """The same context, but for these."""
    return replace(context, **changes)


def connect(dsn: str) -> Connection:
    """Another session of the application."""
    return psycopg.connect(dsn, autocommit=True, application_name="shop")
