"""f: a file of tables runs as psql would run it, or is refused when it is read."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import EITHER, PARENT_AND_TABLE, RUNS, STOPS, Case
from tests.operations.site import plan_of

PLAN = plan_of("create_tables: new.sql")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("CREATE TEMP TABLE tmpx (id int);", id="f1"),
        pytest.param("CREATE LOCAL TEMPORARY TABLE tmpx (id int) ON COMMIT DROP;", id="f1-on-commit"),
        pytest.param("CREATE TABLE pg_temp.tmpx (id int);", id="f1-by-schema"),
        pytest.param(
            "CREATE TEMP TABLE tmpx (id int); CREATE TABLE n (LIKE tmpx);", id="f1-like-a-temporary"
        ),
    ],
)
def test_f1_a_temporary_table_is_refused(trial_of: OpenTrial, text: str) -> None:
    """It would end with our session: a plan cannot mean it."""
    case = Case(
        name="f1", setup="", plan=PLAN, files={"new.sql": text}, check=STOPS, says=("(?i)temp|with a schema",)
    )
    trial_of(case).prove(case)


@pytest.mark.parametrize(
    ("text", "fact", "value"),
    [
        pytest.param(
            "CREATE UNLOGGED TABLE n (id int);",
            "SELECT relpersistence::text FROM pg_class WHERE relname = 'n'",
            "u",
            id="f1-unlogged",
        ),
        pytest.param(
            "CREATE TABLE IF NOT EXISTS n (id int);",
            "SELECT count(*) FROM pg_class WHERE relname = 'n'",
            1,
            id="f1-if-not-exists",
        ),
        pytest.param(
            "CREATE TABLE n AS SELECT 1 AS id;",
            "SELECT count(*) FROM pg_class WHERE relname = 'n'",
            1,
            id="f1-as-select",
        ),
    ],
)
def test_f1_other_kinds_of_tables_run_or_are_refused(
    trial_of: OpenTrial, text: str, fact: str, value: object
) -> None:
    """What check lets pass is made as it is written, its persistence included."""
    case = Case(name="f1", setup="", plan=PLAN, files={"new.sql": text}, check=EITHER, after={fact: value})
    trial_of(case).prove(case)


NEW_PARENT = "CREATE TABLE np (id int, d date) PARTITION BY RANGE (d); CREATE TABLE np1 PARTITION OF np"
RANGE = "FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')"
TREES = (
    pytest.param(f"{NEW_PARENT} {RANGE};", id="f2"),
    pytest.param(f"{NEW_PARENT} DEFAULT;", id="f2-default"),
    pytest.param(
        f"{NEW_PARENT} {RANGE} PARTITION BY LIST (id); CREATE TABLE np2 PARTITION OF np1 FOR VALUES IN (1);",
        id="f2-two-levels",
    ),
    pytest.param(
        "CREATE TABLE np (id int PRIMARY KEY, d date DEFAULT now()); CREATE TABLE np1 (LIKE np"
        " INCLUDING ALL);",
        id="f2-like",
    ),
    pytest.param(
        "CREATE TABLE np (id int, CHECK (id > 0)); CREATE TABLE np1 (x int) INHERITS (np);", id="f2-inherits"
    ),
    pytest.param(
        "CREATE TABLE np (id int); CREATE TABLE nq (x int); CREATE TABLE np1 (y int) INHERITS (np, nq);",
        id="f2-two-parents",
    ),
)


@pytest.mark.parametrize("text", TREES)
def test_f2_a_table_may_be_made_from_one_above_it(trial_of: OpenTrial, text: str) -> None:
    """PARTITION OF, LIKE and INHERITS of a table that the same file makes: check lets it pass, run makes
    both.
    """
    fact = "SELECT count(*) FROM pg_class WHERE relname IN ('np', 'np1') AND relkind IN ('r', 'p')"
    case = Case(name="f2", setup="", plan=PLAN, files={"new.sql": text}, check=RUNS, after={fact: 2})
    trial_of(case).prove(case)


TABLE = "CREATE TABLE n (id int PRIMARY KEY, p int REFERENCES p)"
TEXTS = (
    pytest.param(f"{TABLE};\nCREATE INDEX i ON n (p)\n-- end of file\n", id="f3"),
    pytest.param(f"{TABLE} -- the last one", id="f3-no-semicolon"),
    pytest.param(f"/* a; /* nested; */ b; */ {TABLE} /* c; */;", id="f3-block"),
    pytest.param(f"{TABLE};\n;;\n-- nothing more;\n", id="f3-empty-statements"),
    pytest.param(f"{TABLE[:-1]}, note text DEFAULT 'a;b' CHECK (note <> $$;$$));", id="f3-in-strings"),
    pytest.param(f"{TABLE[:-1]}, note text DEFAULT E'it\\'s; 100 % -- no comment');", id="f3-escapes"),
    pytest.param(f"{TABLE};".replace(" ", "\r\n"), id="f3-line-ends"),
    pytest.param(f'{TABLE[:-1]}, "a;b--c" int); CREATE INDEX i ON n ("a;b--c");', id="f3-in-names"),
    pytest.param(f"\ufeff{TABLE};", id="f3-byte-order-mark"),
    pytest.param(f"{TABLE[:-1]}, note text DEFAULT '%s {{}} <x> :y $1');", id="f3-placeholders"),
)


@pytest.mark.parametrize("text", TEXTS)
def test_f3_comments_and_semicolons_may_stand_anywhere(trial_of: OpenTrial, text: str) -> None:
    """A file is split where PostgreSQL's grammar splits it: what psql would run, runs."""
    fact = "SELECT count(*) FROM pg_class WHERE relname = 'n'"
    case = Case(
        name="f3", setup=PARENT_AND_TABLE, plan=PLAN, files={"new.sql": text}, check=RUNS, after={fact: 1}
    )
    trial_of(case).prove(case)
