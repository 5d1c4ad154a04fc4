"""Effects of earlier steps, folded: what a step finds when its turn comes."""

from __future__ import annotations

from pathlib import Path

from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import (
    AddsCheck,
    AddsColumn,
    CreatesIndex,
    CreatesTable,
    DropsColumn,
    DropsConstraint,
    DropsIndex,
    DropsTable,
    Effect,
    EndsUnique,
    MakesNotNull,
    PlanEffects,
)
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.operations.schema_before import Schema, TableThen, schema_after, schema_before
from online_migrate.plan.expand import expand
from online_migrate.plan.load import load
from online_migrate.plan.model import Step
from online_migrate.postgres.catalog import Catalog
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

STEPS = (
    "add_column: {table: users, column: bot_id, type: integer, new_rows: 1}",
    "backfill: {table: users, column: bot_id, value: 1}",
    "create_index: {table: users, name: idx_users_bot, columns: [bot_id, telegram_id], unique: true}",
    "set_not_null: {table: users, column: bot_id}",
    "drop_default: {table: users, column: bot_id}",
    "swap_unique: {table: users, from: [telegram_id], to: idx_users_bot}",
)


def table_after(*effects: Effect) -> TableThen | None:
    """Table t after steps with these effects, without a database."""
    plan = load(plan_of("analyze: {table: t}"), OPERATIONS, path=Path("plan.yaml"))
    spec = plan.stages[0].steps[0]
    steps = [Step(stage=f"s{n}", spec=spec, table="t") for n in range(len(effects))]
    folded = PlanEffects((s, (e,)) for s, e in zip(steps, effects, strict=True))
    return Schema(folded, None, len(steps)).table("t")


def test_each_step_finds_what_the_steps_before_it_leave(site_of: OpenSite) -> None:
    """On the shop's catalog: the column, its default, its rows, its index, its NOT NULL, and the end of the
    old unique.
    """
    site = site_of(plan_of(*STEPS))
    seen = []
    for step in site.steps:
        table = schema_before(site.place(step)).table("users")
        assert table is not None
        column = table.columns.get("bot_id")
        state = (
            () if column is None else (column.has_default, column.is_not_null, column.filled_by is not None)
        )
        seen.append((state, "idx_users_bot" in table.indexes))
    assert seen == [
        ((), False),
        ((True, False, False), False),
        ((True, False, True), False),
        ((True, False, True), True),
        ((True, True, True), True),
        ((False, True, True), True),
    ]
    swap = site.place(site.steps[-1])
    before, after = schema_before(swap).table("users"), schema_after(swap).table("users")
    assert before is not None
    assert after is not None
    old = {n for n, i in before.indexes.items() if i.is_unique and set(i.columns) == {"telegram_id"}}
    assert old
    assert before.indexes.keys() - after.indexes.keys() == old


def test_the_fold_says_what_the_run_leaves(site_of: OpenSite) -> None:
    """After the whole plan has run, the catalog says what the fold promised before: columns, NOT NULL,
    defaults, indexes.
    """
    site = site_of(plan_of(*STEPS))
    promised = schema_after(site.place(site.steps[-1])).table("users")
    site.execute_all()
    left = Schema(PlanEffects(), Catalog(site.sessions.work), 0).table("users")
    assert promised is not None
    assert left is not None
    shown = [
        {n: (c.is_not_null, c.has_default) for n, c in table.columns.items()} for table in (promised, left)
    ]
    assert shown[0] == shown[1]
    assert promised.indexes.keys() == left.indexes.keys()


def test_without_a_database_nothing_is_said_to_be_missing() -> None:
    """Of a table that the plan does not create only what its steps touch is known."""
    text = plan_of("set_not_null: {table: t, column: c}", "analyze: {table: t}")
    plan = load(text, OPERATIONS, path=Path("plan.yaml"))
    steps = expand(plan, {}, OPERATIONS)
    table = schema_before(
        Place(plan=plan, step=steps[1], catalog=None, effects=effects_of(plan, steps))
    ).table("t")
    assert table is not None
    assert not table.lacks("other")
    assert table.columns["c"].is_not_null is True
    assert table.columns["c"].has_default is None


def test_what_is_created_is_dropped_again() -> None:
    """Each effect that makes a thing has its opposite."""
    made = CreatesTable(table="t", columns=("a", "b"))
    index = CreatesIndex(table="t", name="i", columns=("a",), is_unique=True)
    table = table_after(made, index, MakesNotNull(table="t", column="a"))
    assert table is not None
    assert list(table.indexes) == ["i"]
    assert table.lacks("c")
    assert table_after(made, DropsTable(table="t")) is None
    for drop in (
        DropsIndex(table="t", name="i"),
        DropsConstraint(table="t", name="i"),
        EndsUnique(table="t", columns=("a",), successor="j"),
    ):
        left = table_after(made, index, AddsCheck(table="t", name="positive", expression="a > 0"), drop)
        assert left is not None
        assert left.indexes == {}
    dropped = table_after(
        made, AddsColumn(table="t", column="c", type="integer"), DropsColumn(table="t", column="c")
    )
    assert dropped is not None
    assert dropped.lacks("c")
