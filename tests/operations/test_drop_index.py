"""drop_index: what still needs the index, whom the drop waits for, and the index of a partitioned table."""

from __future__ import annotations

import pytest

from online_migrate.errors import LockNotAcquired
from online_migrate.events import LongStatement
from online_migrate.findings import Severity
from online_migrate.operations.contract.state import State
from online_migrate.postgres.locks import LockMode
from tests.operations.beside import await_true, from_the_side, read_relations
from tests.operations.conftest import OpenSite
from tests.operations.driven import locks_of
from tests.operations.site import connect, plan_of

DROP = plan_of("drop_index: {table: notes, name: notes_code}")
NOTES = "CREATE TABLE notes (id int NOT NULL, code text NOT NULL, size int);"
PARTITIONED = """
    CREATE TABLE notes (id int, code text) PARTITION BY RANGE (id);
    CREATE TABLE notes_1 PARTITION OF notes FOR VALUES FROM (1) TO (9) PARTITION BY RANGE (id);
    CREATE TABLE notes_1_1 PARTITION OF notes_1 FOR VALUES FROM (1) TO (5);
    CREATE TABLE notes_2 PARTITION OF notes DEFAULT;
    CREATE INDEX notes_code ON notes (code);"""


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        ("ALTER TABLE notes ADD CONSTRAINT notes_code UNIQUE (code)", "index_of_constraint", "notes_code"),
        (
            "ALTER TABLE notes ADD CONSTRAINT notes_code PRIMARY KEY (code)",
            "index_of_constraint",
            "notes_code",
        ),
        (
            (
                "CREATE UNIQUE INDEX notes_code ON notes (code);"
                " CREATE TABLE tags (code text REFERENCES notes (code))"
            ),
            "foreign_key_on_unique",
            "tags_code_fkey of tags",
        ),
        (
            (
                "CREATE TABLE books (code text PRIMARY KEY); CREATE INDEX notes_code ON notes (code, id);"
                " CREATE INDEX notes_code_size ON notes (size, code);"
                " ALTER TABLE notes ADD FOREIGN KEY (code) REFERENCES books"
            ),
            "last_index_of_foreign_key",
            "notes_code_fkey (code)",
        ),
        (
            (
                "CREATE UNIQUE INDEX notes_code ON notes (code);"
                " ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_code"
            ),
            "index_is_replica_identity",
            "UPDATE and DELETE",
        ),
    ],
)
def test_what_needs_the_index_is_named_before(site_of: OpenSite, made: str, code: str, words: str) -> None:
    site = site_of(DROP)
    site.sql(NOTES + made)
    (finding,) = site.stops()
    assert finding.code == code
    assert words in finding.fact
    assert finding.remedy


def test_another_index_serves_the_foreign_key(site_of: OpenSite) -> None:
    """One that an earlier step builds, for example: replaced in one plan."""
    build = "create_index: {table: notes, name: notes_code_id, columns: [code, id]}"
    site = site_of(plan_of(build, "drop_index: {table: notes, name: notes_code}"))
    site.sql(
        NOTES + "CREATE TABLE books (code text PRIMARY KEY); CREATE INDEX notes_code ON notes (code);"
        "ALTER TABLE notes ADD FOREIGN KEY (code) REFERENCES books"
    )
    assert site.stops() == []
    site.execute_all()
    assert site.verify() == []
    assert site.sql("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'notes'::regclass") == [
        ("notes_code_id",)
    ]


def test_a_unique_that_is_lost_is_a_warning(site_of: OpenSite) -> None:
    """With the functions whose ON CONFLICT needs it; not where another unique has the same columns."""
    site = site_of(DROP)
    site.sql(
        NOTES
        + """CREATE UNIQUE INDEX notes_code ON notes (code);
        CREATE FUNCTION keep(c text) RETURNS void LANGUAGE sql AS
          'INSERT INTO notes (id, code) VALUES (1, c) ON CONFLICT (code) DO NOTHING'"""
    )
    assert [f.code for f in site.preflight()] == ["unique_lost", "upsert_needs_index", "index_dropped"]
    site.sql("CREATE UNIQUE INDEX notes_code_too ON notes (code)")
    assert [f.code for f in site.preflight()] == ["index_dropped"]


def test_an_index_in_use_is_a_warning(site_of: OpenSite) -> None:
    """How often it was scanned, and from 16 on when."""
    site = site_of(DROP)
    site.sql(NOTES + "CREATE INDEX notes_code ON notes (code)")
    assert [f.code for f in site.preflight()] == ["index_dropped"]
    with connect(site.app.info.dsn) as other:
        other.execute("SET enable_seqscan = off")
        other.execute("SELECT FROM notes WHERE code = 'a'")
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'notes_code'"
    await_true(lambda: site.one(scans))
    used = next(f for f in site.preflight() if f.code == "index_in_use")
    assert used.severity is Severity.WARN
    assert "in use: 1 scans since" in used.fact
    assert ("the last at 20" in used.fact) == (site.app.info.server_version >= 160000)


def test_the_statement_that_builds_it_again_is_shown(site_of: OpenSite) -> None:
    site = site_of(DROP)
    site.sql(NOTES + "CREATE INDEX notes_code ON notes (code) WHERE size > 3")
    found = {f.code: f for f in site.preflight()}
    again = found["index_dropped"].remedy.partition(": ")[2]
    site.execute()
    assert site.state() is State.DONE
    site.sql(again)
    assert [f.code for f in site.verify()] == ["index_back"]
    assert site.one("SELECT pg_get_indexdef('notes_code'::regclass)").endswith("WHERE (size > 3)")


def test_a_table_that_is_clustered_on_it_is_a_warning(site_of: OpenSite) -> None:
    site = site_of(DROP)
    site.sql(NOTES + "CREATE INDEX notes_code ON notes (code); ALTER TABLE notes CLUSTER ON notes_code")
    assert [f.code for f in site.preflight()] == ["index_clustered", "index_dropped"]


def test_an_index_that_does_not_exist_is_a_warning(site_of: OpenSite) -> None:
    site = site_of(DROP)
    site.sql(NOTES)
    (finding,) = site.preflight()
    assert (finding.severity, finding.code) == (Severity.WARN, "index_missing")
    site.execute()
    assert site.verify() == []


def test_whom_the_drop_waits_for_is_reported(site_of: OpenSite) -> None:
    """After its limit the drop is cancelled; the invalid index that is left is dropped by the next run."""
    site = site_of(
        plan_of("drop_index: {table: notes, name: notes_code}", head="locks: {long_statement: 2s}")
    )
    site.sql(NOTES + "CREATE INDEX notes_code ON notes (code)")
    with connect(site.app.info.dsn) as other, other.transaction():
        other.execute("SELECT FROM notes")
        with pytest.raises(LockNotAcquired) as raised:
            site.execute()
        assert f"pid {other.info.backend_pid}" in str(raised.value.blockers)
        assert any(str(other.info.backend_pid) in str(e.waits_for) for e in site.heard.of(LongStatement))
        assert site.state() is State.PARTIAL
        assert site.stops() == []
    site.execute()
    assert site.verify() == []


def test_the_index_of_a_partitioned_table_is_dropped_in_one_window(site_of: OpenSite) -> None:
    """PostgreSQL does not drop it concurrently; what the statement locks is what it declares."""
    site = site_of(DROP)
    site.sql(PARTITIONED)
    assert [f.code for f in site.preflight()] == ["index_dropped"]
    names = read_relations(site.app)
    (statement,) = site.operation().statements(site.place(), site.step().spec.params)
    declared = {n.relation: n.mode for n in statement.locks}
    assert from_the_side(locks_of(site, [statement], names)) == declared
    assert set(declared.values()) == {LockMode.ACCESS_EXCLUSIVE}
    assert len(declared) == 8  # four tables, four indexes
    site.sql("CREATE INDEX notes_code ON notes (code)")
    site.execute()
    assert site.verify() == []
    assert site.one("SELECT count(*) FROM pg_index WHERE indrelid = 'notes_1_1'::regclass") == 0


def test_the_index_of_a_partition_belongs_to_its_parent(site_of: OpenSite) -> None:
    site = site_of(plan_of("drop_index: {table: notes_2, name: notes_2_code_idx}"))
    site.sql(PARTITIONED)
    (finding,) = site.stops()
    assert finding.code == "index_of_parent"
    assert "drop notes_code" in finding.remedy
