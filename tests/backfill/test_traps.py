"""Traps are found at check, not at row 12,000,000."""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.operations.base import Severity
from tests.backfill.plans import explained, findings_of
from tests.backfill.tables import do, make_table

FILL = "backfill: {table: t, column: c, value: 1}"
TOUCH = """CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.v := new.v + 1; RETURN new; END $$;
           CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;"""


@pytest.mark.parametrize(
    ("more", "code", "severity", "words"),
    [
        pytest.param(
            f"{TOUCH} CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()",
            "trigger_sets", Severity.WARN, "trigger touch of t sets v", id="a trigger that sets a column",
        ),
        pytest.param(
            f"{TOUCH} CREATE TRIGGER tell AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()",
            "triggers", Severity.WARN, "tell", id="a trigger that fires for every row",
        ),
        pytest.param(
            "ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID",
            "broken_check", Severity.STOP, "id = 1; id = 2; id = 3", id="a NOT VALID check that old rows break",
        ),
        pytest.param(
            "ALTER TABLE t ADD g integer GENERATED ALWAYS AS (v + 1) STORED",
            "generated_beside", Severity.INFO, "computed anew", id="a generated column beside",
        ),
        pytest.param("ALTER TABLE t SET UNLOGGED", "unlogged", Severity.INFO, "a crash", id="an unlogged table"),
        pytest.param("CREATE TABLE heir () INHERITS (t)", "inherited", Severity.WARN, "heir", id="tables that inherit"),
        pytest.param(
            "CREATE RULE quiet AS ON UPDATE TO t DO INSTEAD NOTHING",
            "update_rule", Severity.STOP, "quiet", id="a rule on update",
        ),
        pytest.param(
            "CREATE UNIQUE INDEX u ON t (v, c) WHERE c IS NOT NULL",
            "unique_on_column", Severity.STOP, "inserts of children wait", id="a unique index on the column",
        ),
        pytest.param("CREATE PUBLICATION p FOR TABLE t", "published", Severity.WARN, "p", id="a published table"),
        pytest.param(
            "CREATE PUBLICATION p FOR ALL TABLES", "all_tables", Severity.WARN, "our journal too", id="a publication of all tables"
        ),
        pytest.param(
            "ALTER TABLE t REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE t",
            "replica_identity", Severity.STOP, "55000", id="a published table without a replica identity",
        ),
        pytest.param("CREATE INDEX on_c ON t (c)", "index_on_column", Severity.INFO, "on_c", id="an index on the column"),
    ],
)  # fmt: skip
def test_a_trap_is_found(database: str, more: str, code: str, severity: Severity, words: str) -> None:
    """Each names what it is about, and what to do."""
    make_table(database, 20, more=more)
    found = findings_of(database, FILL)
    assert code in found, found.keys()
    assert found[code].severity is severity
    assert words in found[code].fact
    assert found[code].remedy


def test_a_plain_table_has_no_trap(database: str) -> None:
    """No finding but the forecast: what is shown matters."""
    make_table(database, 20)
    assert set(findings_of(database, FILL)) <= {"forecast"}


def test_a_trigger_of_the_root_fires_on_its_partitions(database: str) -> None:
    """A partition has its own copy, which up to 14 the catalog calls internal; the triggers of foreign keys are no finding."""
    do(
        database,
        "CREATE TABLE bots (id integer PRIMARY KEY)",
        "CREATE TABLE t (id integer, v integer, c integer REFERENCES bots) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
    )
    fill = "backfill: {table: t1, column: c, value: 1}"
    assert "triggers" not in findings_of(database, fill)
    do(database, f"{TOUCH} CREATE TRIGGER tell AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()")
    assert findings_of(database, fill)["triggers"].fact.endswith("writes: tell")


def test_a_constraint_trigger_is_a_trigger(database: str) -> None:
    """It is somebody's own, although it stands in pg_constraint."""
    make_table(
        database,
        20,
        more=f"{TOUCH} CREATE CONSTRAINT TRIGGER tell AFTER UPDATE ON t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION tell()",
    )
    assert "tell" in findings_of(database, FILL)["triggers"].fact


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
    """It will be there by then: check says what it costs, explain shows the one stripe, the forecast is the dearer one."""
    make_table(database, 2_000)
    key = "create_index: {table: t, name: <table>_c, columns: [c]}"
    found, plain = findings_of(database, key, FILL), findings_of(database, FILL, key)
    assert "index t_c, which the plan builds above, will hold t.c" in found["index_on_column"].fact
    assert "index_on_column" not in plain
    assert found["forecast"].fact.endswith("; in one stripe with VACUUM between, since an index holds it: t")
    assert plain["forecast"].fact.endswith("; 1 table in interleaved stripes, heap-only: no index holds c")
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
                 CREATE TRIGGER b BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch(); ALTER TABLE t DISABLE TRIGGER b""",
    )
    assert not {"triggers", "trigger_sets"} & findings_of(database, FILL).keys()


def test_skipped_triggers_are_refused_beside_a_foreign_key(database: str) -> None:
    """session_replication_role = replica switches its check off as well: an orphan would go in."""
    make_table(
        database,
        20,
        more="CREATE TABLE bots (id integer PRIMARY KEY); ALTER TABLE t ADD FOREIGN KEY (c) REFERENCES bots",
    )
    found = findings_of(database, "backfill: {table: t, column: c, value: 1, triggers: skip}")
    assert found["skip_foreign_key"].severity is Severity.STOP


def test_skipped_triggers_are_refused_below_a_foreign_key_of_the_plan(database: str) -> None:
    """It is there by then; below the backfill it hinders nobody."""
    make_table(database, 20, more="CREATE TABLE bots (id integer PRIMARY KEY)")
    fill = "backfill: {table: t, column: c, value: 1, triggers: skip}"
    key = "add_foreign_key: {table: t, column: c, references: bots.id}"
    assert findings_of(database, key, fill)["skip_foreign_key"].severity is Severity.STOP
    assert "skip_foreign_key" not in findings_of(database, fill, key)


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param("ALTER TABLE t1 DROP CONSTRAINT t1_pkey", id="no key"),
        pytest.param(
            "CREATE UNIQUE INDEX by_id ON t1 (id); ALTER TABLE t1 REPLICA IDENTITY USING INDEX by_id; DROP INDEX by_id",
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


def test_a_partitioned_table_is_walked_by_its_partitions(database: str) -> None:
    """A root has no rows of its own: its leaves are tables of the plan."""
    do(
        database,
        "CREATE TABLE t (id integer, c integer) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
    )
    assert findings_of(database, FILL)["not_a_table"].severity is Severity.STOP
    assert "not_a_table" not in findings_of(database, "backfill: {table: t1, column: c, value: 1}")


def test_row_level_security_that_hides_rows_stops(database: str, clerk: str) -> None:
    """Rows that a role does not see would stay without a value, and the proof would not see them either."""
    user = psycopg.conninfo.conninfo_to_dict(clerk)["user"]
    make_table(database, 20, more=f"ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT ALL ON t TO {user}")
    do(
        database, "ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID"
    )  # whose rows are not looked at then
    assert findings_of(clerk, FILL)["row_security"].severity is Severity.STOP
    assert "row_security" not in findings_of(database, FILL)


def test_missing_rights_stop(database: str, clerk: str) -> None:
    """The role, the table and the GRANT are named."""
    user = psycopg.conninfo.conninfo_to_dict(clerk)["user"]
    make_table(database, 20)
    found = findings_of(clerk, "backfill: {table: t, column: c, value: 1, triggers: skip}")
    assert f"GRANT SELECT, UPDATE ON public.t TO {user}" in found["table_right"].remedy
    assert found["skip_right"].severity is Severity.STOP
