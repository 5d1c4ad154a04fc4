"""The throttler that waits for the checkpointer."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from online_migrate.backfill.throttlers.base import Throttle
from online_migrate.backfill.throttlers.wal_since_checkpoint import WalSinceCheckpoint
from online_migrate.clock import SystemClock
from online_migrate.engine.check.plan import check
from online_migrate.engine.survey import survey
from online_migrate.findings import (
    Severity,
)
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load
from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.tables import make_table
from tests.backfill.throttlers.standby import run, write_wal


def test_wal_holds_us_until_the_next_checkpoint(connection: Connection) -> None:
    """A hundredth of max_wal_size written is red at a limit of a hundredth; a checkpoint makes it green
    again.
    """
    throttle = Throttle([WalSinceCheckpoint(limit_share=0.01)], SystemClock(), every_s=0)
    connection.execute("CHECKPOINT")
    assert not throttle.read(connection)[0].is_red
    write_wal(connection, 11 * 1024**2)
    reading = throttle.read(connection)[0]
    assert reading.is_red
    assert reading.reason.startswith("11 MiB of WAL since the last checkpoint ")
    assert "(limit 10 MiB, 1% of max_wal_size 1 GiB)" in reading.reason
    connection.execute("CHECKPOINT")
    assert not throttle.read(connection)[0].is_red


def test_a_share_below_what_starts_a_checkpoint_says_so(connection: Connection) -> None:
    """Held at 1 % no WAL of ours would ever start the checkpoint that frees us: the reason says when one
    comes.
    """
    connection.execute("CHECKPOINT")
    write_wal(connection, 11 * 1024**2)
    reason = WalSinceCheckpoint(limit_share=0.01).read(connection).reason
    assert reason.endswith(
        "the next starts at 539 MiB of WAL, or 5 min after the last: set a larger share, or run CHECKPOINT"
    )
    assert "the next starts" not in WalSinceCheckpoint(limit_share=0.8).read(connection).reason
    connection.execute("CHECKPOINT")


def test_every_role_sees_it_unless_the_right_was_taken_away(database: str, connection: Connection) -> None:
    """A plain role needs no grant; if it was revoked, check says which grant is missing."""
    throttler = WalSinceCheckpoint(limit_share=0.8)
    run(database, "CREATE ROLE no_sight LOGIN")
    try:
        with Connector(dsn=psycopg.conninfo.make_conninfo(database, user="no_sight")).open("test") as plain:
            assert throttler.blind(plain) is None
            assert throttler.read(plain).utilisation >= 0
            connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_checkpoint() FROM PUBLIC")
            assert throttler.blind(plain) == "GRANT EXECUTE ON FUNCTION pg_control_checkpoint() TO no_sight"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                throttler.read(plain)
    finally:
        run(database, "DROP ROLE no_sight")


@pytest.mark.parametrize(("share", "is_low"), [(0.5, True), (0.53, False), (0.8, False)])
def test_a_share_that_holds_until_the_timeout_is_a_warning_at_check(
    database: str, share: float, is_low: bool
) -> None:
    """Below what starts a checkpoint by WAL the hold would end by time alone: said before the run, once for
    all tables.
    """
    for name in "ab":
        make_table(database, 10, name=name)
    text = f"""plan: small
stages:
  - stage: one
    hold_when: {{wal_since_checkpoint: {share:.0%}}}
    steps:
      - backfill: {{tables: [a, b], column: c, value: 1}}
"""
    with Connector(dsn=database).open("check") as session:
        found = check(survey(load(text, OPERATIONS, path=Path("small.yaml")), session))
    low = [f for f in found if f.code == "checkpoint_share"]
    assert len(low) == is_low
    for finding in low:
        assert finding.severity is Severity.WARN
        assert finding.fact.startswith(
            "wal_since_checkpoint: 50% holds the run until checkpoint_timeout (5 min)"
        )
