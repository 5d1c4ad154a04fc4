"""r: a set may hold a partitioned table, and a leaf that comes later is not forgotten."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial, with_roles
from tests.cases.trial import RUNS, STOPS, Case

SET_PLAN = """
plan: p
table_sets: {owned: {tables: [users], also: {referencing: users}}}
stages:
  - stage: a
    steps:
      - add_column: {tables: owned, column: bot_id, type: integer, new_rows: 1}
      - backfill: {tables: owned, column: bot_id, value: 1}
      - create_index: {tables: owned, name: "idx_<table>_bot_id", columns: [bot_id]}
      - add_foreign_key: {tables: owned, column: bot_id, references: bots.id}
      - set_not_null: {tables: owned, column: bot_id}
"""
USERS = """
    CREATE TABLE bots (id int PRIMARY KEY); INSERT INTO bots VALUES (1);
    CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT g FROM generate_series(1, 5) g;
    CREATE TABLE orders (id int, ym int, user_id int REFERENCES users) PARTITION BY """
ROWS = "INSERT INTO orders VALUES (1, 1, 1), (2, 2, 2);"
BY_LIST = "LIST (ym); CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);"
TREES = (
    pytest.param(BY_LIST + "CREATE TABLE orders_2 PARTITION OF orders FOR VALUES IN (2);", id="r1"),
    pytest.param(BY_LIST + "CREATE TABLE orders_2 PARTITION OF orders DEFAULT;", id="r1-default"),
    pytest.param(
        "HASH (ym); CREATE TABLE orders_1 PARTITION OF orders FOR VALUES WITH (MODULUS 2, REMAINDER"
        " 0);"
        "CREATE TABLE orders_2 PARTITION OF orders FOR VALUES WITH (MODULUS 2, REMAINDER"
        " 1);",
        id="r1-hash",
    ),
    pytest.param(
        BY_LIST + "CREATE TABLE orders_2 (user_id int, gone text, ym int, id int); ALTER TABLE"
        " orders_2 DROP gone;"
        "ALTER TABLE orders ATTACH PARTITION orders_2 FOR VALUES IN"
        " (2);",
        id="r1-other-column-order",
    ),
    pytest.param(
        BY_LIST + "CREATE TABLE orders_2 PARTITION OF orders FOR VALUES IN (2, 3) PARTITION BY LIST"
        " (id);"
        "CREATE TABLE orders_2_a PARTITION OF orders_2 DEFAULT;",
        id="r1-two-levels",
    ),
    pytest.param(
        "LIST (ym); CREATE SCHEMA old; CREATE TABLE old.orders_1 PARTITION OF orders FOR VALUES IN"
        " (1);"
        "CREATE TABLE orders_2 PARTITION OF orders FOR VALUES IN"
        " (2);",
        id="r1-leaf-in-another-schema",
    ),
    pytest.param(
        BY_LIST + ('CREATE TABLE "Orders 2" PARTITION OF orders FOR VALUES IN (2);'), id="r1-quoted-leaf"
    ),
)
NOT_NULL = """
    SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
    WHERE relname ~* '^orders' AND relkind IN ('r', 'p') AND attname = 'bot_id' AND NOT attnotnull"""
VALID_INDEX = """
    SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relname = 'orders' AND relkind
      = 'p' AND indisvalid"""
VALID_KEY = """
    SELECT count(*) FROM pg_constraint WHERE conrelid = 'orders'::regclass AND contype = 'f'
    AND confrelid = 'bots'::regclass AND convalidated"""
NOT_FILLED = "SELECT count(*) FROM orders WHERE bot_id IS NULL"


@pytest.mark.parametrize("tree", TREES)
def test_r1_a_partitioned_table_of_a_set_is_migrated_as_a_whole(trial_of: OpenTrial, tree: str) -> None:
    """Column, rows, index, foreign key and NOT NULL on root and leaves, whatever the tree looks like."""
    facts = {NOT_NULL: 0, VALID_INDEX: 1, VALID_KEY: 1, NOT_FILLED: 0}
    case = Case(name="r1", setup=USERS + tree + ROWS, plan=SET_PLAN, check=RUNS, after=facts)
    trial_of(case).prove(case)


LATE_PLAN = """
plan: late_partition
stages:
  - stage: columns
    steps:
      - add_column: {table: orders, column: tenant_id, type: integer, new_rows: 1}
  - stage: backfill
    steps:
      - backfill: {tables: [%(tables)s], column: tenant_id, value: 1}
  - stage: constraints
    steps:
      - add_foreign_key: {tables: [%(tables)s], column: tenant_id, references: tenants.id}
      - set_not_null: {tables: [%(tables)s], column: tenant_id}
"""
LATE = """
    CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1);
    CREATE TABLE orders (id int, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    INSERT INTO orders SELECT g, '2026-01-05' FROM generate_series(1, 100) g;"""
NEXT_MONTH = "FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
A_ROW = "INSERT INTO orders_2 (id, at, tenant_id) VALUES (5000, '2026-02-02', NULL)"
ATTACHED = "CREATE TABLE orders_2 (tenant_id int, at date NOT NULL, id int NOT NULL)"


@pytest.mark.parametrize(
    ("late", "tables"),
    [
        pytest.param((f"CREATE TABLE orders_2 PARTITION OF orders {NEXT_MONTH}", A_ROW), "orders_1", id="r2"),
        pytest.param(
            (ATTACHED, A_ROW, (f"ALTER TABLE orders ATTACH PARTITION orders_2 {NEXT_MONTH}")),
            "orders_1",
            id="r2-attached",
        ),
        pytest.param(
            (ATTACHED, A_ROW, (f"ALTER TABLE orders ATTACH PARTITION orders_2 {NEXT_MONTH}")),
            "orders",
            id="r2-of-a-root",
        ),
    ],
)
def test_r2_a_partition_that_comes_while_the_run_rests_is_seen(
    trial_of: OpenTrial, late: tuple[str, ...], tables: str
) -> None:
    """Check and run name a leaf that was attached after the backfill; a run over the root fills it before the
    next stage.
    """
    trial = trial_of(Case(name="r2", setup=LATE, plan=LATE_PLAN % {"tables": tables}))
    first = trial.call("run", "--through", "backfill")
    assert first.code == 0, first.all
    trial.admin.run_sql(*late)
    check, run = trial.call("check"), trial.call("run")
    assert "orders_2" in check.all, check.all
    if run.code == 0:
        assert trial.ask("SELECT count(*) FROM orders WHERE tenant_id IS NULL") == 0, run.all
    else:
        assert "orders_2" in run.all, run.all


WHILE_IT_RUNS = """
plan: late_partition
stages:
  - stage: backfill
    steps:
      - add_column: {table: orders, column: tenant_id, type: integer, new_rows: 1}
      - backfill: {table: orders, column: tenant_id, value: 1}
  - stage: between
    steps:
      - add_column: {table: busy, column: note, type: text}
  - stage: constraints
    steps:
      - set_not_null: {table: orders, column: tenant_id}
"""
STAGE_BEGAN = "SELECT count(*) = 1 FROM online_migrate.stage WHERE stage = 'between' AND state = 'running'"


def test_r2_while_it_runs(trial_of: OpenTrial) -> None:
    """A partition with rows that is attached between two stages of one run is filled before the next."""
    setup = LATE + "CREATE TABLE busy (id int);"
    trial = trial_of(Case(name="r2", setup=setup, plan=WHILE_IT_RUNS))
    with trial.admin.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE busy IN SHARE MODE")
        child = trial.desk.start()
        trial.admin.await_true("SELECT to_regclass('online_migrate.stage') IS NOT NULL", child)
        trial.admin.await_true(STAGE_BEGAN, child)
        trial.admin.run_sql(ATTACHED, A_ROW, f"ALTER TABLE orders ATTACH PARTITION orders_2 {NEXT_MONTH}")
    assert child.wait() == 0, child.said
    assert "orders_2" in child.said
    assert trial.ask("SELECT count(*) FROM orders WHERE tenant_id IS NULL") == 0
    assert trial.call("verify").code == 0


def test_r2_detached_while_it_rests(trial_of: OpenTrial) -> None:
    """What is no partition any more has no open step any more, and the run goes to its end."""
    setup = LATE + f"CREATE TABLE busy (id int); CREATE TABLE orders_2 PARTITION OF orders {NEXT_MONTH};"
    plan = WHILE_IT_RUNS.replace("      - backfill:", "  - stage: fill\n    steps:\n      - backfill:")
    trial = trial_of(Case(name="r2", setup=setup, plan=plan))
    first = trial.call("run", "--through", "backfill")
    assert first.code == 0, first.all
    trial.admin.run_sql("ALTER TABLE orders DETACH PARTITION orders_2", "DROP TABLE orders_2")
    run = trial.call("run")
    assert run.code == 0, run.all
    assert trial.ask("SELECT count(*) FROM online_migrate.step WHERE table_name = 'orders_2'") == 0
    assert trial.call("verify").code == 0


def test_r2_after_the_run(trial_of: OpenTrial) -> None:
    """A partition that comes after the end: verify says so, and the same command fills it."""
    plan = WHILE_IT_RUNS.replace("  - stage: constraints", "  - stage: last").replace(
        "set_not_null: {table: orders, column: tenant_id}", "analyze: {table: orders}"
    )
    trial = trial_of(Case(name="r2", setup=LATE + "CREATE TABLE busy (id int);", plan=plan))
    assert trial.call("run").code == 0
    trial.admin.run_sql(ATTACHED, A_ROW, f"ALTER TABLE orders ATTACH PARTITION orders_2 {NEXT_MONTH}")
    verify = trial.call("verify")
    assert verify.code == 5, verify.all
    assert "orders_2" in verify.all
    assert trial.call("run").code == 0
    assert trial.ask("SELECT count(*) FROM orders WHERE tenant_id IS NULL") == 0
    assert trial.call("verify").code == 0


def test_r1_no_partition_yet(trial_of: OpenTrial) -> None:
    """A root without partitions has no rows to fill; what it gets, its first partition has."""
    case = Case(
        name="r1", setup=USERS + "LIST (ym);", plan=SET_PLAN, check=RUNS, after={NOT_NULL: 0, VALID_KEY: 1}
    )
    trial_of(case).prove(case)


def test_r1_killed_in_a_partition(trial_of: OpenTrial) -> None:
    """SIGKILL in the middle of a partition: the next run goes on at its cursor, and fills each row once."""
    setup = (
        USERS
        + BY_LIST
        + (
            "CREATE TABLE orders_2 PARTITION OF orders DEFAULT;"
            "INSERT INTO orders SELECT g, g % 2 + 1, g % 5 + 1 FROM generate_series(1, 6000) g;"
        )
    )
    slow = "pace: {batch_target: 1ms, duty: 10%, min_rows: 1, max_rows: 5}\n    steps:"
    trial = trial_of(Case(name="r1", setup=setup, plan=SET_PLAN.replace("steps:", slow)))
    child = trial.desk.start()
    begun = "SELECT coalesce(sum(rows_done), 0) > 100 FROM online_migrate.cursor"
    trial.admin.await_true("SELECT to_regclass('online_migrate.cursor') IS NOT NULL", child)
    trial.admin.await_true(begun, child)
    child.end()
    (trial.desk.folder / "plan.yaml").write_text(SET_PLAN)
    run = trial.call("run", "--accept-changed-plan")
    assert run.code == 0, run.all
    rows = "SELECT sum(rows_done) FROM online_migrate.step WHERE table_name LIKE 'orders%'"
    assert trial.ask(rows) == 6000
    assert trial.ask(NOT_FILLED) == 0


def test_r1_a_role_without_rights_in_the_schema_of_a_partition(trial_of: OpenTrial) -> None:
    """Found by check, with the GRANT, not by the server in the middle of the run."""
    tree = (
        "LIST (ym); CREATE SCHEMA old; CREATE TABLE old.orders_1 PARTITION OF orders FOR VALUES IN (1);"
        "GRANT ALL ON SCHEMA public TO om_role_owner; GRANT CREATE ON DATABASE om_database TO om_role_owner;"
        "GRANT pg_read_all_stats TO om_role_owner;"
        "ALTER TABLE bots OWNER TO om_role_owner; ALTER TABLE users OWNER TO om_role_owner;"
        "ALTER TABLE orders OWNER TO om_role_owner; ALTER TABLE old.orders_1 OWNER TO om_role_owner;"
    )
    case = Case(name="r1", setup=USERS + tree, plan=SET_PLAN, role="om_role_owner", check=STOPS)
    trial = trial_of(case)
    said = trial.call("check")
    assert said.code == 3, said.all
    assert "GRANT USAGE ON SCHEMA old TO" in said.all
    assert "GRANT CREATE ON SCHEMA old TO" in said.all
    trial.admin.run_sql(with_roles("GRANT USAGE, CREATE ON SCHEMA old TO om_role_owner"))
    run = trial.call("run")
    assert run.code == 0, run.all


def test_r2_detached_and_attached_again(trial_of: OpenTrial) -> None:
    """Rows that came while it was no partition are filled, although its step had been done."""
    setup = LATE + f"CREATE TABLE busy (id int); CREATE TABLE orders_2 PARTITION OF orders {NEXT_MONTH};"
    plan = WHILE_IT_RUNS.replace(
        "set_not_null: {table: orders, column: tenant_id}", "analyze: {table: orders}"
    )
    trial = trial_of(Case(name="r2", setup=setup, plan=plan))
    assert trial.call("run", "--through", "backfill").code == 0
    trial.admin.run_sql("ALTER TABLE orders DETACH PARTITION orders_2")
    assert trial.call("run", "--through", "between").code == 0
    trial.admin.run_sql(A_ROW, f"ALTER TABLE orders ATTACH PARTITION orders_2 {NEXT_MONTH}")
    run = trial.call("run")
    assert run.code == 0, run.all
    assert trial.ask("SELECT count(*) FROM orders WHERE tenant_id IS NULL") == 0
