"""j: a finished step stays what it is, and is what it was when a gate opens."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import STOPS, Case

ORDERS = """
    CREATE TABLE orders (id serial PRIMARY KEY, note text);
    INSERT INTO orders (note) SELECT 'x' FROM generate_series(1, 100) g;"""
CHANGES = """
plan: accepted
stages:
  - stage: columns
    steps:
      - add_column: {table: orders, column: bot_id, type: integer, new_rows: 1}
      - backfill: {table: orders, column: bot_id, value: 1}
      - create_index: {table: orders, name: orders_bot, columns: [bot_id]}
  - stage: later
    steps:
      - set_not_null: {table: orders, column: bot_id}
"""
CHANGED = (
    pytest.param("type: integer", "type: bigint", id="j1"),
    pytest.param("new_rows: 1", "new_rows: 2", id="j1-default"),
    pytest.param("value: 1", "value: 2", id="j1-value"),
    pytest.param("columns: [bot_id]", "columns: [bot_id, id]", id="j1-index"),
    pytest.param(
        "      - create_index: {table: orders, name: orders_bot, columns: [bot_id]}\n", "", id="j1-removed"
    ),
)


@pytest.mark.parametrize(("old", "new"), CHANGED)
def test_j1_a_change_of_a_finished_step_is_refused(trial_of: OpenTrial, old: str, new: str) -> None:
    """Accepted or not: what is done does not become another; the refusal names the step, and nothing
    is run.
    """
    trial = trial_of(Case(name="j1", setup=ORDERS, plan=CHANGES))
    first = trial.call("run", "--through", "columns")
    assert first.code == 0, first.all
    (trial.desk.folder / "plan.yaml").write_text(CHANGES.replace(old, new))
    said = trial.call("run", "--accept-changed-plan")
    assert said.code in STOPS, f"exit {said.code}; verify: exit {trial.call('verify').code}\n{said.all}"
    assert "columns" in said.all, said.all
    assert not trial.ask(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'bot_id'"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            "      - set_not_null: {table: orders, column: bot_id}",
            "      - analyze: {table: orders}",
            id="j1-open-step",
        ),
        pytest.param("  - stage: later\n", "  - stage: later\n    pace: {duty: 100%}\n", id="j1-pace"),
    ],
)
def test_j1_a_change_of_what_is_open_can_be_accepted(trial_of: OpenTrial, old: str, new: str) -> None:
    """Steps that have not begun, and the pace, may change: the accepted run goes to its end and
    verify agrees.
    """
    trial = trial_of(Case(name="j1", setup=ORDERS, plan=CHANGES))
    assert trial.call("run", "--through", "columns").code == 0
    (trial.desk.folder / "plan.yaml").write_text(CHANGES.replace(old, new))
    said = trial.call("run", "--accept-changed-plan")
    assert said.code == 0, said.all
    assert trial.call("verify").code == 0


USERS = """
    CREATE TABLE bots (id int PRIMARY KEY); INSERT INTO bots VALUES (1);
    CREATE TABLE users (id serial PRIMARY KEY, tg bigint NOT NULL UNIQUE);
    INSERT INTO users (tg) SELECT generate_series(1, 100);"""
GATED = """
plan: gate_blind
stages:
  - stage: columns
    steps:
      - add_column: {table: users, column: bot_id, type: integer, new_rows: 1}
      - backfill: {table: users, column: bot_id, value: 1}
  - stage: uniques
    steps:
      - create_index: {table: users, name: users_bot_tg, columns: [bot_id, tg], unique: true}
      - add_foreign_key: {table: users, column: bot_id, references: bots.id}
      - set_not_null: {table: users, column: bot_id}
  - stage: swap%s
    steps:
      - drop_default: {table: users, column: bot_id}
      - swap_unique: {table: users, from: [tg], to: users_bot_tg}
"""
GATE = "\n    gate: {approval: every release writes bot_id}"
DEFAULT = "SELECT count(*) FROM pg_attrdef WHERE adrelid = 'users'::regclass AND adnum = 3"
DRIFT = (
    pytest.param("DROP INDEX users_bot_tg", "users_bot_tg", id="j2"),
    pytest.param(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_bot_tg'::regclass",
        "users_bot_tg",
        id="j2-invalid-index",
    ),
    pytest.param(
        "DROP INDEX users_bot_tg; CREATE INDEX users_bot_tg ON users (bot_id, tg)",
        "users_bot_tg",
        id="j2-another-index",
    ),
    pytest.param(
        "ALTER TABLE users DROP CONSTRAINT users_bot_id_fkey",
        "users_bot_id_fkey|add_foreign_key",
        id="j2-foreign-key",
    ),
    pytest.param("ALTER TABLE users ALTER bot_id DROP NOT NULL", "set_not_null", id="j2-not-null"),
    pytest.param("ALTER TABLE users ALTER bot_id TYPE bigint", "add_column", id="j2-type"),
    pytest.param(
        "ALTER TABLE users ALTER bot_id DROP NOT NULL; UPDATE users SET bot_id = NULL WHERE id = 7",
        "bot_id",
        id="j2-rows",
    ),
)


@pytest.mark.parametrize(("drift", "says"), DRIFT)
def test_j2_drift_of_finished_steps_stops_before_the_gate(trial_of: OpenTrial, drift: str, says: str) -> None:
    """What was finished is verified again before the point of no return: check names it, and the default
    still exists.
    """
    trial = trial_of(Case(name="j2", setup=USERS, plan=GATED % GATE))
    assert trial.call("run").code == 75
    trial.admin.run_sql(*drift.split("; "))
    check, run = trial.call("check"), trial.call("run", "--approve", "swap")
    assert trial.ask(DEFAULT) == 1, f"the default is gone\n{run.all}"
    assert check.code != 0, check.all
    assert run.code not in (0, 1), f"run: exit {run.code}\n{run.all}"
    assert any(word in check.all for word in says.split("|")), check.all


def test_j3_drift_is_found_at_each_start(trial_of: OpenTrial) -> None:
    """Without a gate, too: a run that goes on verifies what it finished before."""
    trial = trial_of(Case(name="j3", setup=USERS, plan=GATED % ""))
    assert trial.call("run", "--through", "uniques").code == 0
    trial.admin.run_sql("ALTER TABLE users DROP CONSTRAINT users_bot_id_fkey")
    said = trial.call("run")
    assert said.code not in (0, 1), f"exit {said.code}\n{said.all}"
    assert trial.ask(DEFAULT) == 1, said.all


def test_j4_a_run_that_finds_nothing_changed_goes_on(trial_of: OpenTrial) -> None:
    """Verifying again is no obstacle: rows that an application writes while the run rests are no drift."""
    trial = trial_of(Case(name="j4", setup=USERS, plan=GATED % GATE))
    assert trial.call("run").code == 75
    trial.admin.run_sql("INSERT INTO users (tg) VALUES (5000)", "UPDATE users SET tg = 6000 WHERE id = 1")
    said = trial.call("run", "--approve", "swap")
    assert said.code == 0, said.all
    assert trial.call("verify").code == 0


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("pending", id="z4"),
        pytest.param("running", id="z4-half-done"),
    ],
)
def test_z4_a_run_is_done_only_where_each_of_its_steps_is(trial_of: OpenTrial, state: str) -> None:
    """A journal whose run says done while a step is open is not done: verify ends with 5 and names
    the step.
    """
    trial = trial_of(Case(name="z4", setup=USERS, plan=GATED % ""))
    assert trial.call("run").code == 0
    trial.admin.run_sql(f"UPDATE online_migrate.step SET state = '{state}' WHERE step LIKE 'create_index%'")
    said = trial.call("verify")
    assert said.code == 5, f"verify: exit {said.code}\n{said.all}"
    assert "users_bot_tg" in said.all, said.all
