"""Steps that contradict each other are found from the plan alone; plans that work are let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from online_migrate.engine.check.contradictions import (
    ensure_no_contradiction,
    find_contradictions,
    findings_of,
)
from online_migrate.errors import PlanError, PlanErrors
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.effects import PlanEffects
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.plan.expand import expand, listed_tables
from online_migrate.plan.load import load

ADD = "add_column: {table: t, column: c, type: integer}"
ADD_DEFAULT = "add_column: {table: t, column: c, type: integer, new_rows: 1}"
FILL = "backfill: {table: t, column: c, value: 1}"
NOT_NULL = "set_not_null: {table: t, column: c}"
DROP_DEFAULT = "drop_default: {table: t, column: c}"
KEY = "add_foreign_key: {table: t, column: c, references: p.id}"
UNIQUE = "create_index: {table: t, name: t_code_c, columns: [code, c], unique: true}"
SWAP = "swap_unique: {table: t, from: [code], to: t_code_c}"
FILE = "CREATE TABLE p (id int PRIMARY KEY, code text); CREATE UNIQUE INDEX p_code ON p (code);"


def effects(folder: Path, *steps: str, head: str = "") -> PlanEffects:
    """Each step in a stage of its own, beside a file that creates table p."""
    (folder / "p.sql").write_text(FILE)
    stages = "".join(f"  - stage: s{n}\n    steps:\n      - {step}\n" for n, step in enumerate(steps))
    plan = load(f"plan: p\n{head}\nstages:\n{stages}", OPERATIONS, path=folder / "plan.yaml")
    return effects_of(plan, expand(plan, listed_tables(plan), OPERATIONS))


def found(folder: Path, *steps: str, head: str = "") -> list[Finding]:
    return findings_of(find_contradictions(effects(folder, *steps, head=head)))


@pytest.mark.parametrize(
    ("code", "steps"),
    [
        pytest.param(
            "set_null_not_null", (KEY.replace("}", ", on_delete: set null}"), NOT_NULL), id="set null"
        ),
        pytest.param(
            "set_null_not_null", (NOT_NULL, KEY.replace("}", ", on_delete: set null}")), id="set null after"
        ),
        pytest.param(
            "default_dropped_before_backfill", (ADD_DEFAULT, DROP_DEFAULT, FILL), id="default dropped"
        ),
        pytest.param("not_null_before_backfill", (ADD_DEFAULT, NOT_NULL, FILL), id="not null first"),
        pytest.param("used_before_added", (FILL, ADD), id="backfill before add"),
        pytest.param("used_before_added", (DROP_DEFAULT, ADD), id="drop default before add"),
        pytest.param("used_before_added", (UNIQUE, ADD), id="index before add"),
        pytest.param(
            "used_before_added",
            (
                "backfill: {table: t, column: c, value: {from: {table: q, on: q_id, column: c}}}",
                "add_column: {table: q, column: c, type: integer}",
            ),
            id="a parent's column before add",
        ),
        pytest.param("used_before_created", (KEY, "create_tables: p.sql"), id="key before its table"),
        pytest.param(
            "unknown_column",
            ("create_tables: p.sql", KEY.replace("p.id", "p.ident")),
            id="no such column in the file",
        ),
        pytest.param("added_twice", (ADD, ADD.replace("integer", "bigint")), id="another type"),
        pytest.param("added_twice", (ADD_DEFAULT, ADD_DEFAULT.replace("1", "2")), id="another default"),
        pytest.param(
            "index_name_twice",
            (
                "create_index: {table: a, name: i, columns: [x]}",
                "create_index: {table: b, name: i, columns: [x]}",
            ),
            id="one index name for two tables",
        ),
        pytest.param(
            "index_name_twice", ("create_index: {tables: [a, b], name: i, columns: [x]}",), id="over a list"
        ),
        pytest.param(
            "index_name_twice",
            ("create_tables: p.sql", "create_index: {table: a, name: p_code, columns: [x]}"),
            id="a name of the file",
        ),
        pytest.param(
            "foreign_key_twice", (KEY, KEY.replace("}", ", on_delete: cascade}")), id="another action"
        ),
        pytest.param("foreign_key_twice", (KEY, KEY.replace("p.id", "q.id")), id="one name for two keys"),
        pytest.param("unique_above_backfill", (ADD, UNIQUE, FILL), id="unique before the backfill"),
        pytest.param("swap_without_successor", (SWAP, UNIQUE), id="swap before the build"),
        pytest.param(
            "swap_without_successor",
            (UNIQUE.replace(", unique: true", ""), SWAP),
            id="the successor is not unique",
        ),
        pytest.param(
            "swap_without_successor",
            (UNIQUE.replace("code, c", "c, d"), SWAP),
            id="the successor is on others",
        ),
        pytest.param("swap_without_successor", (ADD, FILL, UNIQUE, SWAP), id="the successor can be NULL"),
        pytest.param(
            "swap_without_successor",
            ("create_tables: p.sql", "swap_unique: {table: p, from: [code], to: p_code_c}"),
            id="no step builds it for a new table",
        ),
        pytest.param(
            "unique_dropped_before_foreign_key",
            (UNIQUE, SWAP, "add_foreign_key: {table: u, column: code, references: t.code}"),
            id="a key to what was swapped",
        ),
        pytest.param(
            "parent_filled_later",
            (
                "backfill: {table: t, column: c, value: {from: {table: q, on: q_id, column: c}}}",
                "backfill: {table: q, column: c, value: 1}",
            ),
            id="parents last",
        ),
    ],
)
def test_a_contradiction_is_found_without_a_database(
    tmp_path: Path, code: str, steps: tuple[str, ...]
) -> None:
    """Each kind stops, names the line of the step, and says what to do; where another step has a part in it,
    its line too.
    """
    (finding,) = [f for f in found(tmp_path, *steps) if f.severity is Severity.STOP]
    assert finding.code == code
    assert finding.fact.startswith(str(tmp_path / "plan.yaml"))
    assert finding.remedy
    with pytest.raises(PlanError, match=r"plan\.yaml:\d+:\d+"):
        ensure_no_contradiction(effects(tmp_path, *steps))


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((ADD_DEFAULT, FILL, UNIQUE, KEY, NOT_NULL, DROP_DEFAULT, SWAP), id="the usual order"),
        pytest.param((ADD_DEFAULT, FILL, KEY, NOT_NULL, DROP_DEFAULT, UNIQUE, SWAP), id="the unique late"),
        pytest.param((SWAP,), id="a successor that may exist"),
        pytest.param((UNIQUE, SWAP), id="columns that may be NOT NULL"),
        pytest.param((FILL, DROP_DEFAULT, "analyze: {table: t}"), id="columns that may exist"),
        pytest.param((ADD, ADD_DEFAULT, FILL), id="the default in a second step"),
        pytest.param((ADD_DEFAULT.replace("}", ", instant: true}"), NOT_NULL, DROP_DEFAULT), id="instant"),
        pytest.param((ADD_DEFAULT.replace("}", ", instant: true}"), FILL), id="instant, then a backfill"),
        pytest.param(("create_tables: p.sql", KEY, "analyze: {table: p}"), id="a table of the plan"),
        pytest.param((KEY.replace("}", ", on_delete: set null}"), FILL), id="set null alone"),
        pytest.param(("create_index: {tables: [a, b], name: i_<table>, columns: [x]}",), id="a name a table"),
        pytest.param((FILL, FILL), id="filled twice"),
        pytest.param((FILL, DROP_DEFAULT, FILL), id="filled again after the default"),
        pytest.param((UNIQUE.replace(", unique: true", ""), FILL), id="a plain index before the backfill"),
    ],
)
def test_a_plan_that_may_work_is_let_pass(tmp_path: Path, steps: tuple[str, ...]) -> None:
    """What only the database can tell is not refused without one."""
    assert [f for f in found(tmp_path, *steps) if f.severity is Severity.STOP] == []
    ensure_no_contradiction(effects(tmp_path, *steps))


@pytest.mark.parametrize(
    ("code", "steps"),
    [
        pytest.param("added_twice", (ADD, ADD), id="column"),
        pytest.param("not_null_twice", (NOT_NULL, NOT_NULL), id="not null"),
        pytest.param("foreign_key_twice", (KEY, KEY), id="foreign key"),
        pytest.param("index_name_twice", (UNIQUE, UNIQUE), id="index"),
        pytest.param("created_twice", ("create_tables: p.sql", "create_tables: p.sql"), id="table"),
        pytest.param("default_dropped_before_backfill", (DROP_DEFAULT, FILL), id="an old default"),
    ],
)
def test_what_changes_nothing_is_only_warned_of(tmp_path: Path, code: str, steps: tuple[str, ...]) -> None:
    """The second of two equal steps finds its work done: the plan works, and one step of it is of no use."""
    assert [(f.code, f.severity) for f in found(tmp_path, *steps)] == [(code, Severity.WARN)]
    ensure_no_contradiction(effects(tmp_path, *steps))


def test_a_set_is_one_finding(tmp_path: Path) -> None:
    """Over a table set two lines contradict each other once, with the tables named."""
    head = "table_sets: {all: {tables: [a, b, c, d, e]}}"
    steps = (
        "backfill: {tables: all, column: c, value: 1}",
        "add_column: {tables: all, column: c, type: integer}",
    )
    (finding,) = found(tmp_path, *steps, head=head)
    assert "a, b, c and 2 more" in finding.fact
    assert f"{tmp_path / 'plan.yaml'}:9:9" in finding.fact


def test_several_are_told_at_once(tmp_path: Path) -> None:
    """Each mistake of a plan is named in one go, as the loader does it."""
    with pytest.raises(PlanErrors) as caught:
        ensure_no_contradiction(effects(tmp_path, SWAP, FILL, ADD, UNIQUE))
    assert len(caught.value.errors) == 2


def test_a_done_step_contradicts_nothing(tmp_path: Path) -> None:
    """A run that is half way is not stopped for what has already succeeded, or cannot be changed any more."""
    plan = effects(tmp_path, ADD_DEFAULT, DROP_DEFAULT, FILL)
    assert find_contradictions(plan, done=[s.key for s in plan.steps[:2]]) == []
    assert find_contradictions(plan, done=[plan.steps[0].key]) != []
