"""u: after the swap a second owner's row is accepted, or check has said what will refuse it."""

from __future__ import annotations

import psycopg
import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import EITHER, STOPS, Case
from tests.operations.site import plan_of

CODES = """
    CREATE TABLE pc (id int PRIMARY KEY, bot_id int NOT NULL DEFAULT 1,
                     code text NOT NULL CONSTRAINT pc_code_key UNIQUE, deleted_at timestamptz, day int);
    INSERT INTO pc SELECT g, 1, 'c' || g, NULL, g FROM generate_series(1, 20) g;
    CREATE INDEX pc_code_plain ON pc (code);"""
SWAP = (
    "create_index: {table: pc, name: pc_bot_code, columns: [bot_id, code], unique: true}",
    "swap_unique: {table: pc, from: [code], to: pc_bot_code}",
    "verify_owner: {tables: owned, column: bot_id}",
)
SWAP_PLAN = plan_of(*SWAP, head="table_sets: {owned: {tables: [pc]}}")


def survives(
    name: str, says: tuple[str, ...], more: str, *, setup: str = CODES, plan: str = SWAP_PLAN
) -> Case:
    """A unique of another kind on the swapped column: check names it."""
    return Case(name=name, setup=setup + more, plan=plan, check=EITHER, says=says, run=None)


GENERATED = (
    "ALTER TABLE pc ADD folded text GENERATED ALWAYS AS (lower(code)) STORED CONSTRAINT pc_folded UNIQUE;"
)
SURVIVORS = (
    survives(
        "u1",
        ("pc_code_live", "pc_code_lower", "pc_code_excl", "pc_code_day_excl"),
        """
        CREATE EXTENSION btree_gist;
        CREATE UNIQUE INDEX pc_code_live ON pc (code) WHERE deleted_at IS NULL;
        CREATE UNIQUE INDEX pc_code_lower ON pc (lower(code));
        ALTER TABLE pc ADD CONSTRAINT pc_code_excl EXCLUDE USING btree (code WITH =);
        ALTER TABLE pc ADD CONSTRAINT pc_code_day_excl EXCLUDE USING gist (code WITH =, day WITH =);""",
    ),
    survives(
        "u1-include",
        ("pc_code_incl",),
        "CREATE UNIQUE INDEX pc_code_incl ON pc (code) INCLUDE (day, bot_id);",
    ),
    survives(
        "u1-opclass",
        ("pc_code_pattern",),
        "CREATE UNIQUE INDEX pc_code_pattern ON pc (code text_pattern_ops);",
    ),
    survives(
        "u1-collation", ("pc_code_coll",), 'CREATE UNIQUE INDEX pc_code_coll ON pc (code COLLATE "POSIX");'
    ),
    survives("u1-desc", ("pc_code_desc",), "CREATE UNIQUE INDEX pc_code_desc ON pc (code DESC NULLS LAST);"),
    survives(
        "u1-deferrable",
        ("pc_code_late",),
        "ALTER TABLE pc ADD CONSTRAINT pc_code_late UNIQUE (code) DEFERRABLE;",
    ),
    survives("u1-generated", ("pc_folded",), GENERATED),
    survives("u1-other-column", ("pc_day_key",), "ALTER TABLE pc ADD CONSTRAINT pc_day_key UNIQUE (day);"),
    survives("u1-whole-row", ("pc_row",), "CREATE UNIQUE INDEX pc_row ON pc ((code || coalesce(day, 0)));"),
    survives(
        "u1-hash-exclusion",
        ("pc_hash",),
        "ALTER TABLE pc ADD CONSTRAINT pc_hash EXCLUDE USING hash (code WITH =);",
    ),
    survives(
        "u1-expression-with-owner-in-where",
        ("pc_first_bot",),
        "CREATE UNIQUE INDEX pc_first_bot ON pc (code) WHERE bot_id > 0;",
    ),
    survives(
        "u1-child-of-inheritance",
        ("pc_old_code",),
        "CREATE TABLE pc_old () INHERITS (pc); CREATE UNIQUE INDEX pc_old_code ON pc_old (code);",
    ),
    survives(
        "u1-table-beside-the-swapped",
        ("coupon_code_key",),
        "CREATE TABLE coupon (id int PRIMARY KEY, bot_id int NOT NULL DEFAULT 1, code text CONSTRAINT"
        " coupon_code_key UNIQUE);"
        " INSERT INTO coupon VALUES (1, 1, 'x');",
        plan=plan_of(*SWAP, head="table_sets: {owned: {tables: [pc, coupon]}}"),
    ),
    survives(
        "u1-leaf",
        ("orders_1_code",),
        """
        CREATE TABLE orders (id int, bot_id int NOT NULL DEFAULT 1, code text) PARTITION BY LIST (id);
        CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1); INSERT INTO orders VALUES (1, 1, 'x');
        CREATE UNIQUE INDEX orders_1_code ON orders_1 (code);""",
        plan=plan_of(*SWAP, head="table_sets: {owned: {tables: [pc, orders]}}"),
    ),
)


@pytest.mark.parametrize("case", SURVIVORS, ids=lambda case: case.name)
def test_u1_every_unique_that_would_refuse_a_second_owner_is_named(trial_of: OpenTrial, case: Case) -> None:
    """Whatever can refuse a second owner's row on a table of the set is named by check, or gone after the
    swap.
    """
    trial = trial_of(case)
    said = trial.call("check")
    assert said.code in EITHER, said.all
    if all(name in said.all for name in case.says):
        return
    assert (said.code, trial.call("run").code) == (0, 0), said.all
    with trial.admin.connect() as connection:
        try:
            connection.execute("INSERT INTO pc (id, bot_id, code) SELECT id + 100, 2, code FROM pc")
            connection.execute("INSERT INTO pc (id, bot_id, code, day) VALUES (900, 2, 'new', 1)")
        except psycopg.errors.IntegrityError as error:
            pytest.fail(f"check did not name {case.says}, and a second owner's row is refused: {error}")


OWNED = (
    survives("u1-owner-in-it", (), "CREATE UNIQUE INDEX pc_bot_day ON pc (day, bot_id);"),
    survives(
        "u1-owner-in-expression", (), "CREATE UNIQUE INDEX pc_bot_day ON pc ((bot_id::text), lower(code));"
    ),
    survives("u1-not-unique", (), "CREATE INDEX pc_bot_day ON pc (lower(code));"),
)


@pytest.mark.parametrize("case", OWNED, ids=lambda case: case.name)
def test_u1_a_unique_with_the_owner_in_it_is_no_question(trial_of: OpenTrial, case: Case) -> None:
    """Where the owner is one of its keys, a second owner's row is accepted, and the swap runs."""
    trial = trial_of(case)
    said = trial.call("check")
    assert said.code == 0, said.all
    assert "pc_bot_day" not in said.all
    assert trial.call("run").code == 0
    trial.admin.run_sql("INSERT INTO pc SELECT id + 100, 2, code, deleted_at, day FROM pc")


PER_OWNER_BY_ITSELF = """
    ALTER TABLE pc ADD own text GENERATED ALWAYS AS (bot_id::text || code) STORED UNIQUE;
    ALTER TABLE pc ADD CONSTRAINT pc_bot_excl EXCLUDE USING btree (bot_id WITH =, code WITH =);
    CREATE TABLE pc_made (id serial PRIMARY KEY, bot_id int NOT NULL DEFAULT 1,
                          pc_id int REFERENCES pc UNIQUE);"""
GLOBAL = """
    CREATE SCHEMA old; CREATE TABLE old.pc_leaf () INHERITS (pc);
    CREATE UNIQUE INDEX leaf_code ON old.pc_leaf (code);
    CREATE UNIQUE INDEX pc_code_lower ON pc (lower(code));"""


def test_u1_what_compares_the_owner_in_any_way_is_no_question(trial_of: OpenTrial) -> None:
    """The owner may be within a generated column, an exclusion, or the row that is referenced."""
    plan = plan_of(*SWAP, head="table_sets: {owned: {tables: [pc, pc_made]}}")
    said = trial_of(Case(name="u1", setup=CODES + PER_OWNER_BY_ITSELF, plan=plan)).call("check")
    assert said.code == 0, said.all
    for name in ("pc_own_key", "pc_bot_excl", "pc_made_pkey", "pc_made_pc_id_key"):
        assert name not in said.all, said.all


def test_u1_a_unique_that_the_plan_names_as_global_is_no_question(trial_of: OpenTrial) -> None:
    """`stays_global` answers the question with a reason; a name that is none is a warning."""
    answers = "stays_global: [{index: pc_code_lower, reason: one code for all}, {index: pc_gone, reason: x}]"
    plan = plan_of(*SWAP, head=f"{answers}\ntable_sets: {{owned: {{tables: [pc]}}}}")
    said = trial_of(Case(name="u1", setup=CODES + GLOBAL, plan=plan)).call("check")
    assert said.code == 0, said.all
    questions = [line for line in said.all.splitlines() if "uniques that stay global, so" in line]
    assert len(questions) == 1
    assert "leaf_code" in questions[0]
    assert "pc_pkey" in questions[0], "its key is given by the application, not by the database"
    assert "pc_code_lower" not in questions[0]
    assert "pc_code_lower (one code for all)" in said.all
    assert "stays_global names pc_gone" in said.all


def upserts(name: str, more: str, says: str) -> Case:
    """An application that writes ON CONFLICT over the old unique."""
    return Case(name=name, setup=CODES + more, plan=SWAP_PLAN, check=EITHER, says=(says,), run=None)


UPSERTS = (
    upserts(
        "u2",
        """CREATE FUNCTION up(c text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO pc (id, code) VALUES (99, c) ON CONFLICT ON CONSTRAINT pc_code_key DO NOTHING;
             END $$;""",
        r"\bup\b",
    ),
    upserts(
        "u2-by-columns",
        """CREATE FUNCTION up(c text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO pc (id, code) VALUES (99, c) ON CONFLICT (code) DO UPDATE SET day = 1; END $$;""",
        r"\bup\b",
    ),
    upserts(
        "u2-quoted-and-in-capitals",
        """CREATE FUNCTION up(c text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
           insert into PC (ID, CODE) values (99, c) on
             conflict on constraint "pc_code_key" do nothing; END $$;""",
        r"\bup\b",
    ),
    upserts(
        "u2-atomic",
        """CREATE FUNCTION up(c text) RETURNS void LANGUAGE sql BEGIN ATOMIC
           INSERT INTO pc (id, code) VALUES (99, c) ON CONFLICT ON CONSTRAINT pc_code_key DO NOTHING; END;""",
        r"\bup\b",
    ),
    upserts(
        "u2-atomic-by-columns",
        """CREATE FUNCTION up(c text) RETURNS void LANGUAGE sql BEGIN ATOMIC
           INSERT INTO pc (id, code) VALUES (99, c) ON CONFLICT (code) DO NOTHING; END;""",
        r"\bup\b",
    ),
    upserts(
        "u2-rule",
        """CREATE TABLE inbox (code text);
           CREATE RULE keep AS ON INSERT TO inbox DO ALSO
           INSERT INTO pc (id, code) VALUES (99, NEW.code) ON CONFLICT (code) DO NOTHING;""",
        r"\b(keep|inbox)\b",
    ),
    upserts(
        "u2-procedure-in-another-schema",
        """CREATE SCHEMA api; CREATE PROCEDURE api.up(c text) LANGUAGE sql AS $$
           INSERT INTO public.pc (id, code) VALUES (99, c) ON CONFLICT ON CONSTRAINT pc_code_key DO NOTHING
             $$;""",
        r"api\.up\b",
    ),
    upserts(
        "u2-through-a-view",
        """CREATE VIEW codes AS SELECT id, code FROM pc;
           CREATE FUNCTION up(c text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO codes VALUES (99, c) ON /* the old */ CONFLICT (code COLLATE "default") DO NOTHING;
           END $$;""",
        r"\bup\b",
    ),
    upserts(
        "u2-table-by-a-variable",
        """CREATE FUNCTION up(t text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('INSERT INTO %I
             VALUES (99, 1, $1) ON CONFLICT ON CONSTRAINT pc_code_key DO NOTHING', t) USING t; END $$;""",
        r"\bup\b",
    ),
)


@pytest.mark.parametrize("case", UPSERTS, ids=lambda case: case.name)
def test_u2_who_upserts_by_the_old_unique_is_named(trial_of: OpenTrial, case: Case) -> None:
    """ON CONFLICT needs the unique that it names or infers: check names each function and rule that would
    fail after the swap.
    """
    trial_of(case).prove(case)


CORRUPT = """
    CREATE TABLE pc (id int PRIMARY KEY, bot_id int NOT NULL DEFAULT 1, code text NOT NULL);
    CREATE UNIQUE INDEX pc_code ON pc (code); INSERT INTO pc VALUES (1, 1, 'a');
    UPDATE pg_index SET indisready = false WHERE indexrelid = 'pc_code'::regclass;
    INSERT INTO pc VALUES (2, 1, 'a');
    UPDATE pg_index SET indisready = true WHERE indexrelid = 'pc_code'::regclass;"""
DUPLICATES = """
    CREATE TABLE pc (id int PRIMARY KEY, bot_id int NOT NULL DEFAULT 1, code text NOT NULL);
    CREATE UNIQUE INDEX pc_code ON pc (code) WHERE %s; INSERT INTO pc VALUES (1, 1, 'a'), (2, 1, 'a');"""


@pytest.mark.parametrize(
    ("setup", "columns"),
    [
        pytest.param(CORRUPT, "[bot_id, code]", id="u3"),
        pytest.param(CORRUPT, "[code, bot_id, id]", id="u3-key-makes-it-unique"),
        pytest.param(DUPLICATES % "false", "[bot_id, code]", id="u3-partial"),
        pytest.param(
            CORRUPT.replace(
                "UPDATE pg_index SET indisready = true", "UPDATE pg_index SET indisvalid = false"
            ),
            "[bot_id, code]",
            id="u3-invalid",
        ),
    ],
)
def test_u3_duplicates_are_found_whatever_an_index_says(
    trial_of: OpenTrial, setup: str, columns: str
) -> None:
    """A damaged, partial or invalid unique proves nothing: check counts the rows themselves before hours are
    spent on a build.
    """
    step = f"create_index: {{table: pc, name: n, columns: {columns}, unique: true}}"
    distinct = "id" in columns.replace("bot_id", "")
    case = Case(name="u3", setup=setup, plan=plan_of(step), check=(0,) if distinct else STOPS)
    trial_of(case).prove(case)


ADOPTED = """
    CREATE TABLE u (id serial PRIMARY KEY, code text NOT NULL CONSTRAINT u_code_key UNIQUE, tenant int NOT
      NULL DEFAULT 1);
    INSERT INTO u (code) SELECT 'c' || g FROM generate_series(1, 100) g;"""
ADOPT = plan_of(
    "create_index: {table: u, name: uq2, columns: [code, tenant], unique: true}",
    "swap_unique: {table: u, from: [code], to: uq2}",
)


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(
            "ALTER TABLE u ADD CONSTRAINT uq2 UNIQUE (code, tenant) DEFERRABLE INITIALLY DEFERRED", id="u4"
        ),
        pytest.param("ALTER TABLE u ADD CONSTRAINT uq2 UNIQUE (code, tenant) DEFERRABLE", id="u4-immediate"),
        pytest.param("CREATE UNIQUE INDEX uq2 ON u (code, tenant) WHERE tenant = 1", id="u4-partial"),
        pytest.param("CREATE UNIQUE INDEX uq2 ON u (code text_pattern_ops, tenant)", id="u4-opclass"),
        pytest.param('CREATE UNIQUE INDEX uq2 ON u (code COLLATE "POSIX", tenant)', id="u4-collation"),
        pytest.param(
            "ALTER TABLE u ADD CONSTRAINT uq2 EXCLUDE USING btree (code WITH =, tenant WITH =)",
            id="u4-exclusion",
        ),
    ],
)
def test_u4_an_index_of_that_name_with_another_meaning_is_a_conflict(trial_of: OpenTrial, there: str) -> None:
    """What create_index finds under its name is adopted only where it does what create_index promises, ON
    CONFLICT included.
    """
    case = Case(name="u4", setup=f"{ADOPTED}{there}", plan=ADOPT, check=STOPS, says=("uq2",))
    trial_of(case).prove(case)


LOST = (
    pytest.param("UNIQUE (code) DEFERRABLE", "(?i)deferrab", id="u5-deferrability"),
    pytest.param("EXCLUDE USING btree (code WITH =)", "(?i)exclu", id="u5-exclusion"),
)


OF_THE_INDEX = """
    CREATE UNIQUE INDEX pc_code_like ON pc (code text_pattern_ops);
    CREATE UNIQUE INDEX pc_code_posix ON pc (code COLLATE "POSIX");
    CREATE UNIQUE INDEX pc_code_note ON pc (code DESC) INCLUDE (day, bot_id);"""
NAMED = (
    "pc_code_like of pc has what pc_bot_code does not: operator class text_pattern_ops of code",
    'pc_code_posix of pc has what pc_bot_code does not: COLLATE "POSIX" of code',
    "pc_code_note of pc has what pc_bot_code does not: INCLUDE bot_id, INCLUDE day, order DESC of code",
)


def test_u5_what_the_old_index_serves_is_named(trial_of: OpenTrial) -> None:
    """Its operator class, collation, order and further columns; of what the new one has, too, nothing."""
    trial = trial_of(Case(name="u5", setup=CODES + OF_THE_INDEX, plan=SWAP_PLAN))
    said = trial.call("check")
    assert said.code == 0, said.all
    assert all(text in said.all for text in NAMED), said.all
    assert "pc_code_key of pc has" not in said.all


def test_u5_what_the_new_index_has_is_not_lost(trial_of: OpenTrial) -> None:
    """create_index can say what the old one was: then nothing of it is lost, and nothing is said."""
    new = "keys: [bot_id, code DESC], include: [day], unique: true"
    steps = (f"create_index: {{table: pc, name: pc_bot_code, {new}}}", *SWAP[1:])
    setup = CODES + "CREATE UNIQUE INDEX pc_code_note ON pc (code DESC) INCLUDE (day);"
    plan = plan_of(*steps, head="table_sets: {owned: {tables: [pc]}}")
    case = Case(name="u5", setup=setup, plan=plan, never=("pc_code_note of pc has",))
    trial_of(case).prove(case)


NAMED_SWAPS = (
    pytest.param("columns: [bot_id, code], where: deleted_at IS NULL", "pc_old", id="u5-partial-by-name"),
    pytest.param("keys: [bot_id, lower(code)]", "pc_low", id="u5-expression-by-name"),
    pytest.param("columns: [bot_id, code]", "pc_excl", id="u5-exclusion-by-name"),
)
NAMED_OLD = """
    ALTER TABLE pc DROP CONSTRAINT pc_code_key;
    CREATE UNIQUE INDEX pc_old ON pc (code) WHERE deleted_at IS NULL;
    CREATE UNIQUE INDEX pc_low ON pc (lower(code));
    ALTER TABLE pc ADD CONSTRAINT pc_excl EXCLUDE USING btree (code WITH =);"""


@pytest.mark.parametrize(("new", "old"), NAMED_SWAPS)
def test_u5_a_unique_that_is_named_is_swapped(trial_of: OpenTrial, new: str, old: str) -> None:
    """Partial, over an expression, an exclusion: dropped once the new one has its keys and the owner."""
    steps = (
        f"create_index: {{table: pc, name: pc_new, {new}, unique: true}}",
        f"swap_unique: {{table: pc, index: {old}, to: pc_new}}",
    )
    gone = {f"SELECT to_regclass('{old}') IS NULL AND to_regclass('pc_new') IS NOT NULL": True}
    setup = CODES + NAMED_OLD
    trial_of(Case(name="u5", setup=setup, plan=plan_of(*steps))).prove(
        Case(name="u5", setup=setup, plan=plan_of(*steps), after=gone)
    )


def test_u5_a_named_unique_stays_where_the_new_one_is_over_other_rows(trial_of: OpenTrial) -> None:
    """The predicates are compared under the lock: the old one stays."""
    new = "columns: [bot_id, code], where: deleted_at IS NOT NULL"
    steps = (
        f"create_index: {{table: pc, name: pc_new, {new}, unique: true}}",
        "swap_unique: {table: pc, index: pc_old, to: pc_new}",
    )
    trial = trial_of(Case(name="u5", setup=CODES + NAMED_OLD, plan=plan_of(*steps)))
    assert trial.call("run").code in (3, 5)
    assert trial.ask("SELECT to_regclass('pc_old') IS NOT NULL")


def test_u5_a_partial_index_replaces_no_whole_one(trial_of: OpenTrial) -> None:
    """Duplicates outside its predicate would be let in: check stops, as the run would."""
    new = "columns: [bot_id, code], where: deleted_at IS NULL, unique: true"
    steps = (f"create_index: {{table: pc, name: pc_bot_code, {new}}}", *SWAP[1:])
    plan = plan_of(*steps, head="table_sets: {owned: {tables: [pc]}}")
    case = Case(name="u5", setup=CODES, plan=plan, check=STOPS, says=("pc_bot_code is partial",))
    trial_of(case).prove(case)


@pytest.mark.parametrize(("old", "says"), LOST)
def test_u5_what_the_swap_loses_is_named(trial_of: OpenTrial, old: str, says: str) -> None:
    """The new unique is compared with the old one: an application that defers, or that excludes, is warned
    before the swap.
    """
    setup = (
        CODES.replace("CONSTRAINT pc_code_key UNIQUE", "")
        + f"ALTER TABLE pc ADD CONSTRAINT pc_code_key {old};"
    )
    case = Case(name="u5", setup=setup, plan=SWAP_PLAN, check=EITHER, says=(says,), run=None)
    trial_of(case).prove(case)


def test_u5_nulls_not_distinct_is_named(trial_of: OpenTrial) -> None:
    """A unique that lets one NULL in only, from 15 on, is no ordinary one: what is lost is named."""
    trial = trial_of(Case(name="u5", setup=CODES, plan=SWAP_PLAN))
    if trial.ask("SELECT current_setting('server_version_num')::int < 150000"):
        assert trial.call("check").code == 0
        return
    trial.admin.run_sql(
        "ALTER TABLE pc DROP CONSTRAINT pc_code_key, ALTER code DROP NOT NULL",
        "ALTER TABLE pc ADD CONSTRAINT pc_code_key UNIQUE NULLS NOT DISTINCT (code)",
    )
    assert "NULLS NOT DISTINCT" in trial.call("check").all
