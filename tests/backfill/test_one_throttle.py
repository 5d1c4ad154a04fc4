"""What holds a backfill remembers what it has seen for as long as the run lasts, not for one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from online_migrate.backfill import throttlers
from online_migrate.backfill.throttlers import Throttler
from online_migrate.backfill.throttlers.standby_lag import Dismissed
from online_migrate.clock import Signal, SystemClock
from online_migrate.engine.runner import Runner
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load
from online_migrate.plan.model import HoldWhen
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connector
from online_migrate.run import RunContext
from tests.backfill.plans import Ears
from tests.backfill.tables import make_table

TEXT = """plan: small
stages:
  - stage: one
    hold_when: {oldest_snapshot: 1h}
    steps:
      - backfill: {tables: [a, b], column: c, value: 1}
"""


def test_all_tables_of_a_run_have_one_throttle(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby that was seen at the first table and is unreachable at the second holds it."""
    make_table(database, 100, name="a")
    make_table(database, 100, name="b")
    made: list[HoldWhen] = []
    throttlers_for = throttlers.throttlers_for

    def noting(hold_when: HoldWhen, dismissed: Dismissed) -> tuple[Throttler, ...]:
        made.append(hold_when)
        return throttlers_for(hold_when, dismissed)

    monkeypatch.setattr(throttlers, "throttlers_for", noting)
    ears = Ears()
    Runner(
        context=RunContext.create(
            load(TEXT, OPERATIONS, path=Path("small.yaml")),
            Connector(dsn=database),
            clock=SystemClock(),
            signal=Signal(),
            sink=ears,
            secrets=Secrets({}, {}),
            show_secret=lambda *_: "nowhere",
        )
    ).run()
    assert {e.table for e in ears.events if e.name == "backfill_started"} == {"a", "b"}
    assert len(made) == 1
