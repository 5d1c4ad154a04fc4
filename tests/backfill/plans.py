"""Small plans around a backfill: checked, and run by the runner itself."""

from __future__ import annotations

from pathlib import Path

from online_migrate.clock import Signal, SystemClock
from online_migrate.engine.check.plan import check
from online_migrate.engine.explain import explain
from online_migrate.engine.runner import Runner
from online_migrate.engine.survey import survey
from online_migrate.events import Event
from online_migrate.findings import (
    Finding,
)
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load
from online_migrate.plan.model import Plan
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connector
from online_migrate.run import RunContext


class Ears:
    """A Sink that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def plan_of(*steps: str) -> Plan:
    """A plan of one stage with these steps."""
    lines = "\n".join(f"      - {s}" for s in steps)
    return load(
        f"plan: small\nstages:\n  - stage: one\n    steps:\n{lines}\n", OPERATIONS, path=Path("small.yaml")
    )


def findings_of(dsn: str, *steps: str) -> dict[str, Finding]:
    """What check says of the plan, by code."""
    connection = Connector(dsn=dsn).open("check")
    try:
        return {f.code: f for f in check(survey(plan_of(*steps), connection))}
    finally:
        connection.close()


def explained(dsn: str, *steps: str) -> list[str]:
    """The statements that explain prints with the database."""
    connection = Connector(dsn=dsn).open("explain")
    try:
        plan = plan_of(*steps)
        return [s.text for step in explain(plan, survey(plan, connection)).steps for s in step.statements]
    finally:
        connection.close()


def run_plan(dsn: str, *steps: str, ears: Ears | None = None) -> list[Event]:
    """Run it to its end; returns the events."""
    ears = ears or Ears()
    Runner(
        context=RunContext.create(
            plan_of(*steps),
            Connector(dsn=dsn),
            clock=SystemClock(),
            signal=Signal(),
            sink=ears,
            secrets=Secrets({}, {}),
            show_secret=lambda *_: "nowhere",
        )
    ).run()
    return ears.events
