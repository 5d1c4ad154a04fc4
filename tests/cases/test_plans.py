"""p: a plan that contradicts itself is refused when it is read; one that already has its gate is not asked
for another.
"""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import EITHER, RUNS, STOPS, Case
from tests.operations.site import plan_of

BOTS = """
    CREATE TABLE bots (id int PRIMARY KEY); INSERT INTO bots VALUES (1);
    CREATE TABLE users (id int PRIMARY KEY, bot_id int DEFAULT 1); INSERT INTO users VALUES (1, 1);"""
SET_NULL = "add_foreign_key: {table: users, column: bot_id, references: bots.id, on_delete: set null}"
NOT_NULL = "set_not_null: {table: users, column: bot_id}"


@pytest.mark.parametrize(
    ("setup", "steps"),
    [
        pytest.param(BOTS, (SET_NULL, NOT_NULL), id="p1"),
        pytest.param(BOTS, (NOT_NULL, SET_NULL), id="p1-the-other-way-round"),
        pytest.param(
            BOTS + ("ALTER TABLE users ALTER bot_id SET NOT NULL;"), (SET_NULL,), id="p1-not-null-already"
        ),
        pytest.param(
            BOTS.replace("PRIMARY KEY, bot_id", ", bot_id")
            + ("ALTER TABLE users ADD PRIMARY KEY (bot_id, id);"),
            (SET_NULL,),
            id="p1-in-the-primary-key",
        ),
        pytest.param(
            BOTS + ("CREATE DOMAIN given AS int NOT NULL; ALTER TABLE users ALTER bot_id TYPE given;"),
            (SET_NULL,),
            id="p1-domain",
        ),
        pytest.param(BOTS, (SET_NULL, "create_tables: later.sql", NOT_NULL), id="p1-steps-between"),
    ],
)
def test_p1_set_null_on_a_column_that_must_not_be_null_is_refused(
    trial_of: OpenTrial, setup: str, steps: tuple[str, ...]
) -> None:
    """A deleted parent would fail for each child: the plan, or check, says so."""
    files = {"later.sql": "CREATE TABLE later (id int PRIMARY KEY);"}
    case = Case(
        name="p1",
        setup=setup,
        plan=plan_of(*steps),
        files=files,
        check=STOPS,
        says=("bot_id", "(?i)set null"),
    )
    trial_of(case).prove(case)


def test_p1_set_null_where_null_may_be(trial_of: OpenTrial) -> None:
    """The same key on a column that stays as it is runs."""
    case = Case(name="p1", setup=BOTS, plan=plan_of(SET_NULL), check=RUNS)
    trial_of(case).prove(case)


THREE = "".join(f"CREATE TABLE {t} (id serial PRIMARY KEY); INSERT INTO {t} DEFAULT VALUES;" for t in "abc")
GATED = """
plan: gated
table_sets: {all: {tables: [a, b, c]}}
stages:
  - stage: columns
    %s
    steps:
      - add_column: {tables: all, column: tenant_id, type: integer}
  - stage: backfill
    %s
    steps:
      - backfill: {tables: all, column: tenant_id, value: 1}
  - stage: constraints
    %s
    steps:
      - set_not_null: {tables: all, column: tenant_id}
"""
GATE = "gate: {approval: every release writes tenant_id}"
NONE = "# no gate"
WARNING = "has no default"


@pytest.mark.parametrize(
    "gates",
    [
        pytest.param((NONE, GATE, NONE), id="p2"),
        pytest.param((NONE, NONE, GATE), id="p2-of-its-own-stage"),
    ],
)
def test_p2_a_gate_above_is_enough(trial_of: OpenTrial, gates: tuple[str, ...]) -> None:
    """A gate between the column and NOT NULL waits for the release that writes it: check asks for no second
    one.
    """
    case = Case(name="p2", setup=THREE, plan=GATED % gates, check=EITHER, never=(WARNING,), run=None)
    trial_of(case).prove(case)


@pytest.mark.parametrize(
    "gates",
    [
        pytest.param((NONE, NONE, NONE), id="p2-no-gate"),
        pytest.param((GATE, NONE, NONE), id="p2-above-the-column"),
    ],
)
def test_p2_without_one_the_warning_is_given_once(trial_of: OpenTrial, gates: tuple[str, ...]) -> None:
    """No gate between column and NOT NULL: one warning that names every table, not one a table."""
    trial = trial_of(Case(name="p2", setup=THREE, plan=GATED % gates))
    said = trial.call("check")
    assert said.all.count(WARNING) == 1, said.all
