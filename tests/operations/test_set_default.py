"""set_default and drop_not_null: what new rows get, and what the server would refuse."""

from __future__ import annotations

import pytest

from online_migrate.operations.contract.state import State
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of
from tests.operations.test_add_column import INSERT


def test_new_rows_get_the_default_and_old_ones_keep_theirs(site_of: OpenSite) -> None:
    """An expression is evaluated for each row, not once."""
    site = site_of(plan_of("set_default: {table: transactions, column: token, sql: gen_random_uuid()}"))
    site.sql("ALTER TABLE transactions ADD COLUMN token uuid")
    old = site.one("SELECT count(*) FROM transactions")
    site.execute()
    site.sql(INSERT)
    site.sql(INSERT)
    assert site.one("SELECT count(*) FROM transactions WHERE token IS NULL") == old
    assert site.one("SELECT count(DISTINCT token) FROM transactions") == 2
    site.sql("ALTER TABLE transactions ALTER token DROP DEFAULT")
    assert [f.code for f in site.verify()] == ["default_changed"]


def test_a_default_that_is_replaced_is_shown(site_of: OpenSite) -> None:
    site = site_of(plan_of("set_default: {table: transactions, column: bot_id, value: 2}"))
    site.sql("ALTER TABLE transactions ADD COLUMN bot_id integer DEFAULT 1")
    (finding,) = site.preflight()
    assert finding.code == "default_replaced"
    assert "SET DEFAULT 1" in finding.remedy


@pytest.mark.parametrize(
    ("column", "code"),
    [
        ("n integer GENERATED ALWAYS AS IDENTITY", "no_default_possible"),
        ("n integer GENERATED ALWAYS AS (1) STORED", "no_default_possible"),
        ("n date", "default_refused"),
    ],
)
def test_a_default_that_the_server_refuses_is_named_before(site_of: OpenSite, column: str, code: str) -> None:
    site = site_of(plan_of("set_default: {table: notes, column: n, value: seven}"))
    site.sql(f"CREATE TABLE notes ({column})")
    (finding,) = site.stops()
    assert finding.code == code


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("CREATE TABLE notes (n integer PRIMARY KEY)", "primary key notes_pkey"),
        ("CREATE TABLE notes (n integer GENERATED ALWAYS AS IDENTITY)", "identity column"),
        (
            (
                "CREATE TABLE notes (n integer NOT NULL UNIQUE);"
                " ALTER TABLE notes REPLICA IDENTITY USING INDEX notes_n_key"
            ),
            "replica identity notes_n_key",
        ),
        (
            (
                "CREATE TABLE book (n integer NOT NULL) PARTITION BY LIST (n);"
                " CREATE TABLE notes PARTITION OF book FOR VALUES IN (1)"
            ),
            "NOT NULL in book",
        ),
    ],
)
def test_what_needs_not_null_is_named_before(site_of: OpenSite, table: str, words: str) -> None:
    site = site_of(plan_of("drop_not_null: {table: notes, column: n}"))
    site.sql(table)
    (finding,) = site.stops()
    assert finding.code == "not_null_needed"
    assert words in finding.fact


def test_a_row_may_lack_the_column_again(site_of: OpenSite) -> None:
    site = site_of(plan_of("drop_not_null: {table: notes, column: n}"))
    site.sql("CREATE TABLE notes (id serial, n integer NOT NULL)")
    site.execute()
    site.sql("INSERT INTO notes DEFAULT VALUES")
    assert site.verify() == []
    site.sql("UPDATE notes SET n = 1; ALTER TABLE notes ALTER n SET NOT NULL")
    assert [f.code for f in site.verify()] == ["not_null_back"]


def test_a_partition_with_another_default_is_not_done(site_of: OpenSite) -> None:
    """The root's default alone says nothing of rows that are inserted into a partition by its name."""
    site = site_of(plan_of("set_default: {table: notes, column: n, value: 7}"))
    site.sql(
        "CREATE TABLE notes (id int, n int DEFAULT 7) PARTITION BY LIST (id);"
        " CREATE TABLE notes_1 PARTITION OF notes (n DEFAULT 5) FOR VALUES IN (1)"
    )
    assert site.state() is State.ABSENT
    site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])
    assert site.sql("INSERT INTO notes_1 (id) VALUES (1) RETURNING n") == [(7,)]
    site.sql("ALTER TABLE notes_1 ALTER n SET DEFAULT 5")
    assert [f.code for f in site.verify()] == ["default_changed"]


def test_what_stays_not_null_below_is_said_before(site_of: OpenSite) -> None:
    """From 18 on the NOT NULL that an inheriting table has of its own stays; before, it goes along."""
    site = site_of(plan_of("drop_not_null: {table: notes, column: n}"))
    site.sql("CREATE TABLE notes (n int NOT NULL); CREATE TABLE heirs (n int NOT NULL) INHERITS (notes)")
    said = [f for f in site.preflight() if f.code == "not_null_kept"]
    site.execute()
    stays = site.one(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'heirs'::regclass AND attname = 'n'"
    )
    assert bool(said) == stays
    assert stays == (site.app.info.server_version >= 180000)
    assert site.verify() == []
