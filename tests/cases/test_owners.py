"""o: no row gets an owner that its parents do not have, and what references the set is known."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import EITHER, STOPS, Case
from tests.operations.site import plan_of

REFERENCING = "table_sets: {owned: {tables: [users], also: {referencing: users}}}"
FILL_AND_VERIFY = (
    "backfill: {tables: owned, column: bot_id, value: 1}",
    "verify_owner: {tables: owned, column: bot_id}",
)
USERS = (
    "CREATE TABLE users (id int PRIMARY KEY, bot_id int); INSERT INTO users SELECT g FROM"
    " generate_series(1, 5) g;"
)
BILLING = """
    CREATE SCHEMA billing;
    CREATE TABLE billing.invoices (id int PRIMARY KEY, user_id int REFERENCES public.users ON DELETE CASCADE);
    CREATE TABLE billing.lines (id int PRIMARY KEY, invoice_id int REFERENCES billing.invoices);
    CREATE TABLE public.notes (id int PRIMARY KEY, invoice_id int REFERENCES billing.invoices, bot_id int);"""
FAR = """
    CREATE SCHEMA a; CREATE SCHEMA "B c";
    CREATE TABLE a.one (id int PRIMARY KEY, user_id int REFERENCES public.users);
    CREATE TABLE "B c"."Two" (id int PRIMARY KEY, one_id int REFERENCES a.one);
    CREATE TABLE a.three (id int PRIMARY KEY, two_id int REFERENCES "B c"."Two");"""
LEAF = """
    CREATE SCHEMA archive;
      CREATE TABLE archive.log (id int, user_id int REFERENCES public.users) PARTITION BY LIST (id);
    CREATE TABLE archive.log_1 PARTITION OF archive.log FOR VALUES IN (1);"""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        pytest.param(BILLING, (r"billing\.invoices", r"\bnotes\b", r"billing\.lines"), id="o1"),
        pytest.param(FAR, (r"a\.one", "Two", r"a\.three"), id="o1-far-and-quoted"),
        pytest.param(LEAF, (r"archive\.log\b",), id="o1-partitioned"),
    ],
)
def test_o1_tables_of_other_schemas_that_reference_the_set_are_named(
    trial_of: OpenTrial, more: str, says: tuple[str, ...]
) -> None:
    """A tenant's rows may lie in any schema, at any distance: check names each table that hangs below the
    set.
    """
    plan = plan_of(*FILL_AND_VERIFY, head=REFERENCING)
    case = Case(name="o1", setup=USERS + more, plan=plan, check=EITHER, says=says, run=None)
    trial_of(case).prove(case)


BOTS = (
    "CREATE TABLE bots (id int PRIMARY KEY, is_master bool); INSERT INTO bots VALUES (1, true), (2, false);"
)
CONSTANT = plan_of("backfill: {tables: [users, orders], column: bot_id, value: 1}")
OTHER_OWNERS = f"""{BOTS}
    CREATE TABLE users (id int PRIMARY KEY, bot_id int); INSERT INTO users VALUES (1, 2), (2, 2);
    CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, bot_id int);
    INSERT INTO orders VALUES (1, 1, NULL), (2, 2, NULL);"""
OWN_ROWS = OTHER_OWNERS.replace("VALUES (1, 2), (2, 2)", "VALUES (1), (2)").replace(
    "(1, 1, NULL), (2, 2, NULL)", "(1, 1, 2), (2, 2, NULL)"
)


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(OTHER_OWNERS, id="o2"),
        pytest.param(OWN_ROWS, id="o2-in-the-table-itself"),
    ],
)
def test_o2_a_constant_owner_stops_where_rows_have_others(trial_of: OpenTrial, setup: str) -> None:
    """A constant that would give a row another owner than its parent or its neighbours have is wrong data:
    check stops.
    """
    case = Case(name="o2", setup=setup, plan=CONSTANT, check=STOPS, says=("orders",))
    trial_of(case).prove(case)


def test_o2_one_owner_so_far_is_no_finding(trial_of: OpenTrial) -> None:
    """Rows that already have the constant's owner are what an interrupted backfill leaves: nothing stops."""
    setup = OTHER_OWNERS.replace("VALUES (1, 2), (2, 2)", "VALUES (1, 1), (2, NULL)").replace(
        ", (2, false)", ""
    )
    facts = {"SELECT count(*) FROM orders WHERE bot_id = 1": 2}
    case = Case(name="o2", setup=setup, plan=CONSTANT, after=facts)
    trial_of(case).prove(case)


def test_o2_several_owners_stop_and_the_plan_may_allow_it(trial_of: OpenTrial) -> None:
    """Where the table of owners has two rows, which of them owns an old row is not known, unless the plan says
    so.
    """
    setup = f"""{BOTS} CREATE TABLE users (id int PRIMARY KEY, bot_id int REFERENCES bots);
        CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, bot_id int);
        INSERT INTO users VALUES (1); INSERT INTO orders VALUES (1, 1);"""
    stops = Case(name="o2", setup=setup, plan=CONSTANT, check=STOPS, says=("2 rows are in bots",))
    trial_of(stops).prove(stops)
    facts = {"SELECT count(*) FROM users WHERE bot_id = 1": 1}
    allowed = CONSTANT.replace("value: 1", "value: 1, other_owners: allowed")
    runs = Case(name="o2", setup=setup, plan=allowed, after=facts)
    trial_of(runs).prove(runs)


KEY = plan_of("add_foreign_key: {table: users, column: bot_id, references: bots.id, on_delete: cascade}")
KEYED = """
    CREATE TABLE bots (id int PRIMARY KEY); INSERT INTO bots VALUES (1);
    CREATE TABLE users (id int PRIMARY KEY, kind int, bot_id int DEFAULT 1);
    INSERT INTO users SELECT g, 1, 1 FROM generate_series(1, 100) g;"""
INTO_SET = """
    CREATE TABLE users (id int PRIMARY KEY, bot_id int); INSERT INTO users VALUES (1), (2);
    CREATE TABLE orders (id int PRIMARY KEY, bot_id int, user_id int CONSTRAINT orders_user REFERENCES
      users ON DELETE CASCADE);"""


@pytest.mark.parametrize(
    ("setup", "plan", "says"),
    [
        pytest.param(KEYED, KEY, "users", id="o3"),
        pytest.param(
            KEYED + "CREATE INDEX i ON users (bot_id) WHERE kind = 2;", KEY, "users", id="o3-partial"
        ),
        pytest.param(KEYED + "CREATE INDEX i ON users (kind, bot_id);", KEY, "users", id="o3-not-leading"),
        pytest.param(KEYED + "CREATE INDEX i ON users USING brin (bot_id);", KEY, "users", id="o3-brin"),
        pytest.param(KEYED, KEY.replace("cascade", "set null"), "users", id="o3-set-null"),
        pytest.param(INTO_SET, plan_of(*FILL_AND_VERIFY, head=REFERENCING), "orders_user", id="o3-existing"),
    ],
)
def test_o3_a_cascade_over_a_column_without_an_index_is_a_warning(
    trial_of: OpenTrial, setup: str, plan: str, says: str
) -> None:
    """Each parent that is deleted scans the whole child: check says so where no
    index can serve the look-up.
    """
    case = Case(name="o3", setup=setup, plan=plan, says=(f"(?s)(index.*{says}|{says}.*index)",), run=None)
    trial_of(case).prove(case)


@pytest.mark.parametrize(
    ("more", "before"),
    [
        pytest.param("CREATE INDEX i ON users (bot_id, kind);", (), id="o3-served"),
        pytest.param("CREATE INDEX i ON users USING hash (bot_id);", (), id="o3-served-by-hash"),
        pytest.param(
            "",
            ("create_index: {table: users, name: idx_users_bot_id, columns: [bot_id]}",),
            id="o3-served-by-the-plan",
        ),
    ],
)
def test_o3_an_index_that_serves_is_enough(trial_of: OpenTrial, more: str, before: tuple[str, ...]) -> None:
    """Where the column leads an index, of the database or of the plan above, nothing is said."""
    key = "add_foreign_key: {table: users, column: bot_id, references: bots.id, on_delete: cascade}"
    case = Case(
        name="o3", setup=KEYED + more, plan=plan_of(*before, key), never=("(?i)without an index|no index",)
    )
    trial_of(case).prove(case)


STORES = """
    CREATE TABLE store (id int PRIMARY KEY);
    CREATE TABLE customer (id int PRIMARY KEY, store_id int NOT NULL REFERENCES store);
    CREATE TABLE item (id int PRIMARY KEY, store_id int NOT NULL REFERENCES store);
    CREATE TABLE rental (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customer, item_id int
      REFERENCES item);
    INSERT INTO store VALUES (1), (2); INSERT INTO customer VALUES (1, 1), (2, 2);
      INSERT INTO item VALUES (1, 1), (2, 2);
    INSERT INTO rental SELECT g, 1 + g % 2, 1 + g % 2 FROM generate_series(1, 500) g;"""
DISAGREE = "INSERT INTO rental VALUES (1001, 1, 2), (1002, 2, 1);"
STORE_PLAN = """
plan: parents
table_sets: {owned: {tables: [store, customer, item, rental]}}
stages:
  - stage: columns
    steps:
      - add_column: {tables: owned, column: tenant_id, type: integer}
  - stage: backfill
    steps:
      - backfill: {table: store, column: tenant_id, value: {sql: id}}
      - backfill:
          tables: [customer, item]
          column: tenant_id
          value: {from: {table: store, on: store_id, column: tenant_id}}
      - backfill:
          table: rental
          column: tenant_id
          value: {from: {table: customer, on: customer_id, column: tenant_id}}
  - stage: swap
    steps:
      - verify_owner: {tables: owned, column: tenant_id}
"""


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(DISAGREE, id="o4"),
        pytest.param("INSERT INTO rental VALUES (1001, 1, 2);", id="o4-one-row-of-many"),
    ],
)
def test_o4_rows_whose_parents_disagree_are_found_before_the_first_stage(
    trial_of: OpenTrial, more: str
) -> None:
    """A row with parents of two owners has none that is right: check names the table, both parents and the
    rows' keys.
    """
    says = (r"(?s)rental.*item|item.*rental", r"\b1001\b")
    case = Case(name="o4", setup=STORES + more, plan=STORE_PLAN, check=EITHER, says=says, run=None)
    trial_of(case).prove(case)


def test_o4_parents_that_agree_or_are_missing_are_no_finding(trial_of: OpenTrial) -> None:
    """A row whose second parent is NULL has one owner: nothing stops, and the plan runs to its end."""
    facts = {"SELECT count(*) FROM rental WHERE tenant_id IS NULL": 0}
    more = "INSERT INTO rental VALUES (2001, 1, NULL);"
    case = Case(name="o4", setup=STORES + more, plan=STORE_PLAN, after=facts)
    trial_of(case).prove(case)


POLYMORPHIC = """
    CREATE TABLE comments (id int PRIMARY KEY, bot_id int, target_type text, target_id int);
    INSERT INTO comments VALUES (1, NULL, 'user', 1);"""


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(POLYMORPHIC, id="o5"),
        pytest.param(
            POLYMORPHIC.replace("target_type text", "content_type_id int")
            .replace("'user'", "7")
            .replace("target_id int", "object_id int"),
            id="o5-django",
        ),
    ],
)
def test_o5_a_polymorphic_pair_is_a_question(trial_of: OpenTrial, more: str) -> None:
    """Rows that point by type and id have parents that no foreign key knows: check asks whose they are."""
    plan = plan_of(*FILL_AND_VERIFY, head="table_sets: {owned: {tables: [users, comments]}}")
    pair = r"\bask\b.*comments.*(target_id|object_id)"
    case = Case(name="o5", setup=USERS + more, plan=plan, says=(pair,), run=None)
    trial_of(case).prove(case)


def test_o6_column_grants_that_miss_the_new_column_are_a_warning(trial_of: OpenTrial) -> None:
    """A role that may write named columns only cannot write the new one: check names
    the role and the GRANT.
    """
    setup = USERS + "GRANT SELECT (id), INSERT (id) ON users TO om_role_app;"
    plan = plan_of("add_column: {table: users, column: tenant_id, type: integer}")
    says = ("om_test_[0-9]+_app", r"GRANT .*\(tenant_id\)")
    case = Case(name="o6", setup=setup, plan=plan, says=says, run=None)
    trial_of(case).prove(case)
