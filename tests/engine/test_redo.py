"""What another session changed is found before the point of no return, and `redo` repairs it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.desk import Desk

PLAN = """
plan: redone
stages:
  - stage: columns
    steps:
      - add_column: {table: users, column: bot_id, type: integer, new_rows: 1}
      - backfill: {table: users, column: bot_id, value: 1}
  - stage: uniques
    steps:
      - create_index: {table: users, name: users_bot_tg, columns: [bot_id, tg], unique: true}
      - set_not_null: {table: users, column: bot_id}
  - stage: swap
    gate: {approval: every release writes bot_id}
    steps:
      - swap_unique: {table: users, from: [tg], to: users_bot_tg}
"""
SETUP = (
    "CREATE TABLE users (id serial PRIMARY KEY, tg bigint NOT NULL UNIQUE)",
    "INSERT INTO users (tg) SELECT generate_series(1, 100)",
)
INDEX = "create_index users_bot_tg"
REOPENED = """SELECT step || ' ' || (fields ->> 'by') || ' ' || (fields ->> 'note')
                FROM online_migrate.history WHERE event = 'step_reopened'"""


@pytest.fixture
def desk(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """At the gate: all but the last stage is done."""
    monkeypatch.chdir(tmp_path)
    desk = Desk(folder=tmp_path, dsn=database)
    (tmp_path / "plan.yaml").write_text(PLAN)
    desk.run_sql(*SETUP)
    assert (said := desk.call("run")).code == 75, said.all
    return desk


def test_redo_repairs_what_was_dropped(desk: Desk) -> None:
    """Exit 5 with the command that repairs it; then the run does that step again, and goes on to its end."""
    desk.run_sql("DROP INDEX users_bot_tg")
    said = desk.call("run", "--approve", "swap")
    assert said.code == 5, said.all
    command = "online-migrate redo plan.yaml 'create_index users_bot_tg' --stage uniques --table users"
    assert command in said.err
    assert desk.ask("SELECT count(*) FROM pg_constraint WHERE conname = 'users_tg_key'") == 1
    assert desk.call("redo", INDEX, "--by", "Ada", "--note", "dropped by mistake").code == 0
    said = desk.call("run", "--approve", "swap")
    assert said.code == 0, said.all
    assert desk.ask(REOPENED) == "create_index users_bot_tg Ada dropped by mistake"
    assert desk.call("verify").code == 0


def test_a_finished_run_can_be_repaired(desk: Desk) -> None:
    """After the end, verify finds it, redo opens the run again, and the run does only what is open."""
    assert desk.call("run", "--approve", "swap").code == 0
    desk.run_sql("ALTER TABLE users ALTER bot_id DROP NOT NULL")
    assert desk.call("verify").code == 5
    assert desk.call("redo", "set_not_null").code == 0
    assert desk.ask("SELECT state FROM online_migrate.run") == "stopped"
    said = desk.call("run")
    assert said.code == 0, said.all
    assert desk.call("verify").code == 0


def test_rows_that_lost_their_value_are_filled_again(desk: Desk) -> None:
    """A backfill is done again from its start: its cursor is not kept.  A unique on the column goes first."""
    desk.run_sql(
        "DROP INDEX users_bot_tg",
        "ALTER TABLE users ALTER bot_id DROP NOT NULL",
        "UPDATE users SET bot_id = NULL WHERE id = 7",
    )
    for step in ("backfill", INDEX, "set_not_null"):
        assert desk.call("redo", step).code == 0
    assert (said := desk.call("run")).code == 75, said.all
    assert desk.ask("SELECT count(*) FROM users WHERE bot_id IS NULL") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((INDEX,), "is as the step made it"),
        (("swap_unique",), "is not done"),
        (("create_index nothing",), "its finished steps: add_column bot_id"),
        ((INDEX, "--table", "nobody"), "has no step"),
    ],
)
def test_redo_refuses_what_makes_no_sense(desk: Desk, arguments: tuple[str, ...], says: str) -> None:
    """Exit 2 with what can be named, and the journal as it was."""
    said = desk.call("redo", *arguments)
    assert said.code == 2, said.all
    assert says in said.err
    assert desk.ask(REOPENED) is None


def test_who_dropped_it_is_named(desk: Desk) -> None:
    """The role and its statement, where pg_stat_statements has them; not the plan's own statements."""
    desk.run_sql("CREATE EXTENSION pg_stat_statements", "SELECT pg_stat_statements_reset()")
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        connection.execute("DROP INDEX users_bot_tg")
        user = connection.info.user
    said = desk.call("check")
    assert said.code == 3
    assert f"pg_stat_statements has role {user}: DROP INDEX users_bot_tg" in said.all


ACCEPTED = """SELECT (fields ->> 'by') || ': ' || (fields ->> 'changes')
                FROM online_migrate.history WHERE event = 'plan_accepted'"""


def test_a_finished_step_becomes_another_only_by_redo(desk: Desk) -> None:
    """--accept-changed-plan alone is refused with what would have to happen; after that the run goes on."""
    (desk.folder / "plan.yaml").write_text(PLAN.replace("type: integer", "type: bigint"))
    said = desk.call("run", "--accept-changed-plan")
    assert said.code == 2, said.all
    assert "columns / add_column bot_id / users is done, and the plan now defines it otherwise" in said.err
    redo = "online-migrate redo plan.yaml 'add_column bot_id' --stage columns --table users"
    assert redo in said.err
    assert redo in (check := desk.call("check")).all, check.all
    assert check.code == 3
    desk.run_sql("ALTER TABLE users ALTER bot_id TYPE bigint")
    assert desk.call("redo", "add_column bot_id").code == 0
    said = desk.call("run", "--accept-changed-plan", "--approve", "swap")
    assert said.code == 0, said.all
    assert "step add_column bot_id: was changed" in desk.ask(ACCEPTED)
    assert desk.call("verify").code == 0
    assert "report: " in desk.call("report", "-o", "r.html").out
    report = (desk.folder / "r.html").read_text()
    assert "changed plan accepted by" in report
    assert "reopened by" in report


def test_a_finished_step_that_makes_nothing_may_leave_the_plan(desk: Desk) -> None:
    """The same for a step of the open stage: neither leaves anything behind that the plan would not know."""
    added = PLAN.replace("      - swap_unique", "      - analyze: {table: users}\n      - swap_unique")
    (desk.folder / "plan.yaml").write_text(added)
    assert desk.call("run", "--accept-changed-plan").code == 75
    (desk.folder / "plan.yaml").write_text(PLAN)
    assert desk.call("run", "--accept-changed-plan", "--approve", "swap").code == 0
    assert desk.ask("SELECT count(*) FROM online_migrate.history WHERE event = 'plan_accepted'") == 2
