"""What check says of locks before anything is run: rights that would make us blind or powerless, and the
plan's own keys.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from online_migrate.cli import main
from online_migrate.engine.check.plan import check
from online_migrate.engine.survey import survey
from online_migrate.errors import PlanError
from online_migrate.operations.registry import OPERATIONS
from online_migrate.operations.shared.steps import _rules_of
from online_migrate.plan.load import load
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connector

TEXT = """plan: locks
locks: {locks}
stages:
  - stage: here
    steps: [analyze: {table: users}]
"""
POLICY = "{end_blockers: {older_than: 30s, matching: '^report ', terminate_after: 10s}}"


def plan_with(locks: str) -> Plan:
    return load(TEXT.replace("{locks}", locks), OPERATIONS, path=Path("plan.yaml"))


def stops(dsn: str, plan: Plan) -> dict[str, str]:
    with Connector(dsn=dsn).open("check") as connection:
        return {f.code: f.remedy for f in check(survey(plan, connection)) if f.severity.value == "stop"}


def test_rights_that_are_missing_are_named_with_the_grant(shop: str) -> None:
    """A role that sees no other session would see no blocker; who may end none cannot carry a blocker policy
    out.
    """
    with psycopg.connect(shop, autocommit=True) as admin:
        admin.execute("DO $$ BEGIN CREATE ROLE om_blind LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    blind = make_conninfo(shop, user="om_blind")
    found = stops(blind, plan_with(POLICY))
    assert found["blind"] == "GRANT pg_read_all_stats TO om_blind"
    assert "GRANT pg_signal_backend TO om_blind" in found["signal_right"]
    assert "signal_right" not in stops(blind, plan_with("{}"))
    assert "signal_right" not in stops(shop, plan_with(POLICY))


def test_the_plans_keys_reach_the_window() -> None:
    """Every bound under `locks` is the window's; without end_blockers there is no policy at all."""
    assert _rules_of(plan_with("{}").locks).policy is None
    rules = _rules_of(
        plan_with(
            "{lock_wait: 5s, blocker_age: 1s, attempts: 3, hold_cap: 2s, exposure: 4s, exposure_run: 8s}"
        ).locks
    )
    assert (rules.lock_wait_s, rules.blocker_age_s, rules.attempts) == (5.0, 1.0, 3)
    assert (rules.hold_cap_s, rules.exposure_s, rules.exposure_run_s) == (2.0, 4.0, 8.0)
    policy = _rules_of(plan_with(POLICY).locks).policy
    assert policy is not None
    assert (policy.matching, policy.older_than_s, policy.terminate_after_s) == ("^report ", 30.0, 10.0)
    assert policy.spare_writers


@pytest.mark.parametrize(
    ("locks", "words"),
    [
        ("{end_blockers: {older_than: 30s}}", "matching"),
        ("{end_blockers: {older_than: 30s, matching: '('}}", "regular expression"),
        ("{standbys: ['host=a password=b']}", "PGPASSWORD"),
    ],
)
def test_a_policy_that_is_half_said_is_a_mistake(locks: str, words: str) -> None:
    """Ending sessions takes an age and a pattern that can be read; nothing is guessed."""
    with pytest.raises(PlanError, match=words):
        plan_with(locks)


def test_a_blocker_that_never_goes_by_the_command_line(shop: str, tmp_path: Path) -> None:
    """Exit 4, its pid named, nothing changed, how to go on; and when it has ended the same command goes on to
    the end.
    """
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "plan: small\nlocks: {lock_wait: 1s}\nstages:\n  - stage: columns\n    steps:\n"
        "      - add_column: {table: users, column: bot_id, type: integer, new_rows: 1}\n"
    )
    column = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'bot_id'"
    arguments = ["run", str(plan), "--dsn", shop]
    with psycopg.connect(shop, application_name="report") as other:
        other.execute("SELECT count(*) FROM users")
        pid = other.info.backend_pid
        refused = CliRunner().invoke(main, arguments)
        assert other.execute(column).fetchone() == (0,)
    assert refused.exit_code == 4
    assert f"pid {pid} (postgres, report): idle in transaction holds ACCESS SHARE on users" in refused.output
    assert "run the same command again" in refused.output
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0, again.output
    with psycopg.connect(shop) as other:
        assert other.execute(column).fetchone() == (1,)
