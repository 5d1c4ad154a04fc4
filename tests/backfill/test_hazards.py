"""Hazards are found at check, not at row 12,000,000."""

from __future__ import annotations

from contextlib import nullcontext

import psycopg
import pytest

from online_migrate.errors import PreflightFailed
from online_migrate.findings import (
    Severity,
)
from tests.backfill.plans import explained, findings_of, run_plan
from tests.backfill.tables import ask, do, make_table

FILL = "backfill: {table: t, column: c, value: 1}"
TOUCH = """CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.v := new.v + 1; RETURN
  new; END $$;
           CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;"""


@pytest.mark.parametrize(
    ("more", "code", "severity", "words"),
    [
        pytest.param(
            f"{TOUCH} CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()",
            "trigger_sets_column", Severity.WARN, "trigger touch of t sets v", id="a trigger that sets a column",
        ),
        pytest.param(
            f"{TOUCH} CREATE TRIGGER tell AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()",
            "triggers_fire", Severity.WARN, "tell", id="a trigger that fires for every row",
        ),
        pytest.param(
            "ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID",
            "check_violated", Severity.STOP, "id = 1; id = 2; id = 3", id="a NOT VALID check that old rows"
                " break",
        ),
        pytest.param(
            "ALTER TABLE t ADD g integer GENERATED ALWAYS AS (v + 1) STORED",
            "generated_columns", Severity.INFO, "computes its generated columns"
                " again", id="a generated column beside",
        ),
        pytest.param("ALTER TABLE t SET UNLOGGED", "unlogged", Severity.INFO, "a crash", id="an unlogged table"),
        pytest.param("CREATE TABLE heir () INHERITS"
            " (t)", "inherited", Severity.WARN, "heir", id="tables that inherit"),
        pytest.param(
            "CREATE RULE quiet AS ON UPDATE TO t DO INSTEAD NOTHING",
            "update_rule", Severity.STOP, "quiet", id="a rule on update",
        ),
        pytest.param(
            "CREATE UNIQUE INDEX u ON t (v, c)",
            "unique_on_column", Severity.STOP, "blocks inserts of child rows", id="a unique index on the column",
        ),
        pytest.param("CREATE PUBLICATION p FOR TABLE"
            " t", "published", Severity.WARN, "p", id="a published table"),
        pytest.param(
            "CREATE PUBLICATION p FOR ALL"
            " TABLES", "published_for_all_tables", Severity.WARN, "also publish our", id="a publication of all tables"
        ),
        pytest.param(
            "ALTER TABLE t REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE t",
            "replica_identity", Severity.STOP, "55000", id="a published table without a replica identity",
        ),
        pytest.param("CREATE INDEX on_c ON t (c)", "index_on_column", Severity.INFO, "on_c", id="an index on the column"),
    ],
)  # fmt: skip
def test_a_hazard_is_found(database: str, more: str, code: str, severity: Severity, words: str) -> None:
    """Each names what it is about, and what to do."""
    make_table(database, 20, more=more)
    found = findings_of(database, FILL)
    assert code in found, found.keys()
    assert found[code].severity is severity
    assert words in found[code].fact
    assert found[code].remedy


@pytest.mark.parametrize(
    ("index", "is_key"),
    [
        ("(v, c)", True),
        ("(v, c) WHERE c IS NOT NULL", False),
        ("(v, (c + 0))", False),
        ("((v + 0), c)", False),
        ("(v) INCLUDE (c)", False),
    ],
)
def test_only_a_unique_index_that_a_key_could_refer_to_stops(database: str, index: str, is_key: bool) -> None:
    """What check says is what a child's insert meets beside our uncommitted update of the column."""
    make_table(database, 20, more=f"UPDATE t SET v = id; CREATE UNIQUE INDEX u ON t {index}")
    do(database, "CREATE TABLE child (t_id bigint REFERENCES t)")
    with psycopg.connect(database) as batch, psycopg.connect(database) as shop:
        batch.execute("UPDATE t SET c = 1 WHERE id = 5")
        shop.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable) if is_key else nullcontext():
            shop.execute("INSERT INTO child VALUES (5)")
    found = findings_of(database, FILL)
    assert ("unique_on_column" in found) is is_key
    assert found["index_on_column"].severity is Severity.INFO


@pytest.mark.parametrize(
    ("check", "value", "stops"),
    [
        pytest.param("c IS NOT NULL", "1", False, id="that the backfill mends"),
        pytest.param("c > 0", "1", False, id="that the value keeps"),
        pytest.param("c > 1", "1", True, id="that the value breaks"),
        pytest.param("c > v", "{sql: 'v + 1'}", False, id="that a derived value keeps"),
        pytest.param("c > v", "{sql: v}", True, id="that a derived value breaks"),
        pytest.param("v > 0", "1", True, id="of another column"),
        pytest.param("10 / v > 1", "1", True, id="that fails"),
    ],
)
def test_a_not_valid_check_is_asked_of_rows_as_they_will_be(
    database: str, check: str, value: str, stops: bool
) -> None:
    """Old rows with their value; what check says is what the server does."""
    make_table(database, 20, more=f"ALTER TABLE t ADD CONSTRAINT k CHECK ({check}) NOT VALID")
    fill = f"backfill: {{table: t, column: c, value: {value}}}"
    assert ("check_violated" in findings_of(database, fill)) is stops
    if stops:
        with pytest.raises(PreflightFailed, match="check k"):
            run_plan(database, fill)
    else:
        run_plan(database, fill)
        assert ask(database, "SELECT count(*) FROM t WHERE c IS NULL") == 0


def test_a_not_valid_check_is_not_asked_of_rows_that_are_not_written(database: str) -> None:
    """One that has its value already is left as it is, whatever it breaks."""
    more = (
        "UPDATE t SET c = 1 WHERE id < 4; UPDATE t SET v = 1 WHERE id > 3; ALTER TABLE t ADD CHECK (v >"
        " 0) NOT VALID"
    )
    make_table(database, 20, more=more)
    assert "check_violated" not in findings_of(database, FILL)
    run_plan(database, FILL)


def test_a_check_on_a_value_that_is_not_known_yet_is_a_warning(database: str) -> None:
    """`<master.id>` is known once its row is made; check says no more than it knows."""
    make_table(
        database,
        20,
        more="ALTER TABLE t ADD CHECK (c > 0) NOT VALID; CREATE TABLE bots (id serial PRIMARY KEY, n text)",
    )
    row = "ensure_row: {id: master, table: bots, where: {n: a}}"
    found = findings_of(database, row, "backfill: {table: t, column: c, value: <master.id>}")
    assert found["check_unverified"].severity is Severity.WARN
    assert "check_violated" not in found


def test_a_check_that_is_not_enforced_is_none(database: str) -> None:
    """From 18 on; an UPDATE does not ask it."""
    make_table(database, 20)
    if int(str(ask(database, "SELECT current_setting('server_version_num')"))) < 180000:
        return
    do(database, "ALTER TABLE t ADD CHECK (v > 0) NOT ENFORCED")
    assert "check_violated" not in findings_of(database, FILL)


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        pytest.param("SELECT 1 INTO new.v", "v", id="SELECT INTO"),
        pytest.param("SELECT 1, 'x' INTO STRICT new.v, NEW.\"filler\"", "filler, v", id="two of them"),
        pytest.param("EXECUTE 'SELECT 1' INTO new.v", "v", id="EXECUTE INTO"),
    ],
)
def test_a_trigger_that_sets_a_column_by_into_is_told(database: str, body: str, reported: str) -> None:
    """Every way of PL/pgSQL to give a column a value, not := alone."""
    make_table(
        database,
        20,
        more=f"""CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN new; END $$;
                 CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()""",
    )
    assert (
        f"trigger f of t sets {reported} in every row"
        in findings_of(database, FILL)["trigger_sets_column"].fact
    )


def test_triggers_in_c_that_set_their_argument_are_told(database: str) -> None:
    """The two that are found in many schemas: the search vector's, and updated_at's (contrib spi, where it is
    installed).
    """
    make_table(database, 20, more='ALTER TABLE t ADD "Words" tsvector, ADD at timestamp')
    do(
        database,
        """CREATE TRIGGER words BEFORE INSERT OR UPDATE ON t FOR EACH ROW
           EXECUTE FUNCTION tsvector_update_trigger('Words', 'pg_catalog.english', filler)""",
    )
    assert "trigger words of t sets Words" in findings_of(database, FILL)["trigger_sets_column"].fact
    if not ask(database, "SELECT count(*) FROM pg_available_extensions WHERE name = 'moddatetime'"):
        return
    do(
        database,
        "DROP TRIGGER words ON t",
        "CREATE EXTENSION moddatetime",
        "CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION moddatetime(at)",
    )
    assert "trigger touch of t sets at" in findings_of(database, FILL)["trigger_sets_column"].fact


def test_a_deferrable_key_is_no_replica_identity(database: str) -> None:
    """PostgreSQL refuses our UPDATE all the same (55000)."""
    do(
        database,
        "CREATE TABLE t (id integer PRIMARY KEY DEFERRABLE, c integer)",
        "INSERT INTO t VALUES (1)",
        "CREATE PUBLICATION p FOR TABLE t",
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        do(database, "UPDATE t SET c = 1")
    assert findings_of(database, FILL)["replica_identity"].severity is Severity.STOP


def test_a_plain_table_has_no_hazard(database: str) -> None:
    """No finding of the table but the forecast: what is shown matters."""
    make_table(database, 20)
    assert set(findings_of(database, FILL)) <= {"forecast", "superuser"}


def test_a_trigger_of_the_root_fires_on_its_partitions(database: str) -> None:
    """A partition has its own copy, which up to 14 the catalog calls internal; the triggers of foreign keys
    are no finding.
    """
    do(
        database,
        "CREATE TABLE bots (id integer PRIMARY KEY)",
        "CREATE TABLE t (id integer, v integer, c integer REFERENCES bots) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
    )
    fill = "backfill: {table: t1, column: c, value: 1}"
    assert "triggers_fire" not in findings_of(database, fill)
    do(database, f"{TOUCH} CREATE TRIGGER tell AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()")
    assert findings_of(database, fill)["triggers_fire"].fact.endswith("writes: tell")


def test_a_constraint_trigger_is_a_trigger(database: str) -> None:
    """It is a trigger of the user, although pg_constraint lists it."""
    make_table(
        database,
        20,
        more=f"{TOUCH} CREATE CONSTRAINT TRIGGER tell AFTER UPDATE ON t DEFERRABLE FOR EACH ROW EXECUTE"
        " FUNCTION tell()",
    )
    assert "tell" in findings_of(database, FILL)["triggers_fire"].fact


def test_a_foreign_table_is_none_of_ours(database: str) -> None:
    """Its rows are elsewhere, and have no TID that could be walked."""
    do(
        database,
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far",
        "CREATE FOREIGN TABLE t (id integer, c integer) SERVER away",
    )
    found = findings_of(database, FILL)["not_a_table"]
    assert found.severity is Severity.STOP
    assert "foreign table" in found.fact


def test_an_index_that_the_plan_builds_above_is_told_as_one_that_is_there(database: str) -> None:
    """It will be there by then: check says what it costs, explain shows the one stripe, the forecast is the
    more expensive one.
    """
    make_table(database, 2_000)
    key = "create_index: {table: t, name: <table>_c, columns: [c]}"
    found, plain = findings_of(database, key, FILL), findings_of(database, FILL, key)
    assert "index t_c, which the plan builds above, contains t.c" in found["index_on_column"].fact
    assert "index_on_column" not in plain
    assert found["forecast"].fact.endswith(
        "; in one stripe with vacuum rounds, because an index contains it: t"
    )
    assert plain["forecast"].fact.endswith("; 1 table in interleaved stripes, heap-only: no index contains c")
    _, batch, _ = explained(database, key, FILL)
    assert "tidsend" not in batch
    batch, _, _ = explained(database, FILL, key)
    assert "tidsend" in batch


def test_triggers_that_cannot_fire_are_none(database: str) -> None:
    """Disabled ones, and those that fire only for another column."""
    make_table(
        database,
        20,
        more=f"""{TOUCH} CREATE TRIGGER a BEFORE UPDATE OF v ON t FOR EACH ROW EXECUTE FUNCTION touch();
                 CREATE TRIGGER b BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch(); ALTER TABLE t
                   DISABLE TRIGGER b""",
    )
    assert not {"triggers_fire", "trigger_sets_column"} & findings_of(database, FILL).keys()


def test_skipped_triggers_are_refused_beside_a_foreign_key(database: str) -> None:
    """session_replication_role = replica switches its check off as well: an orphan would go in."""
    make_table(
        database,
        20,
        more="CREATE TABLE bots (id integer PRIMARY KEY); ALTER TABLE t ADD FOREIGN KEY (c) REFERENCES bots",
    )
    found = findings_of(database, "backfill: {table: t, column: c, value: 1, triggers: skip}")
    assert found["skip_triggers_foreign_key"].severity is Severity.STOP


def test_skipped_triggers_are_refused_below_a_foreign_key_of_the_plan(database: str) -> None:
    """It exists by then; below the backfill it blocks no session."""
    make_table(database, 20, more="CREATE TABLE bots (id integer PRIMARY KEY)")
    fill = "backfill: {table: t, column: c, value: 1, triggers: skip}"
    key = "add_foreign_key: {table: t, column: c, references: bots.id}"
    assert findings_of(database, key, fill)["skip_triggers_foreign_key"].severity is Severity.STOP
    assert "skip_triggers_foreign_key" not in findings_of(database, fill, key)


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param("ALTER TABLE t1 DROP CONSTRAINT t1_pkey", id="no key"),
        pytest.param(
            "CREATE UNIQUE INDEX by_id ON t1 (id); ALTER TABLE t1 REPLICA IDENTITY USING INDEX by_id; DROP"
            " INDEX by_id",
            id="an identity whose index is gone",
        ),
    ],
)
def test_a_partition_that_is_published_through_its_root_needs_an_identity(
    database: str, identity: str
) -> None:
    """PostgreSQL refuses our UPDATE of it (55000): check says so before."""
    do(
        database,
        "CREATE TABLE t (id integer NOT NULL, c integer) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (10)",
        "INSERT INTO t VALUES (1)",
        "CREATE PUBLICATION p FOR TABLE t WITH (publish_via_partition_root)",
    )
    fill = "backfill: {table: t1, column: c, value: 1}"
    assert findings_of(database, fill)["published"].severity is Severity.WARN
    do(database, identity)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        do(database, "UPDATE t1 SET c = 1")
    assert findings_of(database, fill)["replica_identity"].severity is Severity.STOP


def test_a_generated_column_cannot_be_filled(database: str) -> None:
    """PostgreSQL gives its value: 428C9 at the first batch."""
    make_table(database, 20, more="ALTER TABLE t ADD g integer GENERATED ALWAYS AS (v + 1) STORED")
    found = findings_of(database, "backfill: {table: t, column: g, value: 1}")
    assert found["generated_column"].severity is Severity.STOP


def test_a_partitioned_table_is_filled_by_its_partitions(database: str) -> None:
    """A root has no rows of its own: its leaves are filled, those of every level and schema."""
    do(
        database,
        "CREATE TABLE t (id integer, c integer) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id)",
        "CREATE TABLE t21 PARTITION OF t2 FOR VALUES FROM (10) TO (20)",
        "CREATE SCHEMA old",
        "CREATE TABLE old.t22 PARTITION OF t2 FOR VALUES FROM (20) TO (30)",
        "INSERT INTO t SELECT generate_series(0, 29)",
    )
    assert not {"not_a_table", "partitioned", "partitions_left_out"} & findings_of(database, FILL).keys()
    run_plan(database, FILL)
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 30


def test_a_partition_that_the_plan_does_not_fill_is_told(database: str) -> None:
    """One that was attached after the plan was written, say, also while a run is stopped: check is made again
    by every run.
    """
    do(
        database,
        "CREATE TABLE t (id integer, c integer) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20)",
    )
    fill = FILL.replace("table: t", "tables: [t1, t2]")
    assert "partitions_left_out" not in findings_of(database, fill)
    do(
        database,
        "CREATE TABLE t3 (id integer, c integer); ALTER TABLE t ATTACH PARTITION t3 FOR VALUES FROM (20) TO"
        " (30)",
    )
    found = findings_of(database, fill)["partitions_left_out"]
    assert found.severity is Severity.WARN
    assert found.fact == "partitions of t in which the plan does not backfill c: t3"


def test_partitions_have_the_column_that_the_plan_adds_to_their_root(database: str) -> None:
    """One ALTER TABLE for the root, a backfill for each leaf: one plan."""
    do(
        database,
        "CREATE TABLE t (id integer) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20)",
        "INSERT INTO t SELECT generate_series(0, 19)",
        "ANALYZE t",
    )
    steps = ("add_column: {table: t, column: c, type: integer}", FILL.replace("table: t", "tables: [t1, t2]"))
    found = findings_of(database, *steps)
    assert not [f for f in found.values() if f.severity is Severity.STOP]
    assert "instant" in found
    leaves = "tables: [t1, t2], column: c"
    do(database, "CREATE TABLE p (id integer PRIMARY KEY); INSERT INTO p VALUES (1)")
    run_plan(
        database,
        *steps,
        f"set_not_null: {{{leaves}}}",
        f"add_foreign_key: {{{leaves}, references: p.id}}",
        "create_index: {tables: [t1, t2], columns: [c], name: <table>_c}",
    )
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == 20
    assert (
        ask(database, "SELECT count(*) FROM pg_constraint WHERE confrelid = 'p'::regclass AND convalidated")
        == 2
    )


def test_row_level_security_that_hides_rows_stops(database: str, clerk: str) -> None:
    """Rows that a role does not see would stay without a value, and the proof would not see them either."""
    user = psycopg.conninfo.conninfo_to_dict(clerk)["user"]
    make_table(database, 20, more=f"ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT ALL ON t TO {user}")
    do(
        database, "ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID"
    )  # whose rows are not read then
    assert findings_of(clerk, FILL)["row_security"].severity is Severity.STOP
    assert "row_security" not in findings_of(database, FILL)


def test_missing_rights_stop(database: str, clerk: str) -> None:
    """The role, the table and the GRANT are named."""
    user = psycopg.conninfo.conninfo_to_dict(clerk)["user"]
    make_table(database, 20)
    found = findings_of(clerk, "backfill: {table: t, column: c, value: 1, triggers: skip}")
    assert f"GRANT SELECT, UPDATE ON public.t TO {user}" in found["table_right"].remedy
    assert found["skip_triggers_right"].severity is Severity.STOP
