"""add_unique and add_primary_key: duplicates, NULLs, and what exists already."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from online_migrate.errors import VerificationFailed
from online_migrate.operations.contract.state import State
from tests.operations.beside import await_true, is_waiting_for_snapshots, old_snapshot
from tests.operations.conftest import OpenSite
from tests.operations.site import Site, plan_of

UNIQUE = plan_of("add_unique: {table: notes, columns: [code, size], name: <table>_code_key}")
PRIMARY = plan_of("add_primary_key: {table: notes, columns: [id]}")
NOTES = "CREATE TABLE notes (id int NOT NULL, code text, size int);"
NOT_NULL = "UPDATE pg_attribute SET attnotnull = {} WHERE attrelid = 'notes'::regclass AND attname = 'id'"
"""as DROP NOT NULL does, which would wait for the build"""
DEFINITION = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'notes_code_key'"


def indexes(site: Site) -> list[str]:
    query = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'notes'::regclass ORDER BY 1"
    return [name for (name,) in site.sql(query)]


@pytest.mark.parametrize("text", [UNIQUE, PRIMARY], ids=["unique", "primary key"])
def test_duplicates_are_named_before_and_by_the_run(site_of: OpenSite, text: str) -> None:
    """Nothing invalid is left; once they are deleted, the same command succeeds."""
    site = site_of(text)
    site.sql(NOTES + "INSERT INTO notes VALUES (1, 'a', 1), (1, 'a', 1), (2, 'b', NULL), (3, 'b', NULL)")
    (finding,) = site.stops()
    assert finding.code == "duplicates"
    assert "2 times" in finding.fact
    assert "b" not in finding.fact.partition("built: ")[2]
    with pytest.raises(VerificationFailed, match="2 times"):
        site.execute()
    assert indexes(site) == []
    site.sql("DELETE FROM notes WHERE id = 1")
    assert site.stops() == []
    site.execute()
    assert site.verify() == []


def test_nulls_may_be_the_same_value(site_of: OpenSite) -> None:
    """NULLS NOT DISTINCT: two rows with NULL are duplicates; the server refuses the words before 15."""
    site = site_of(UNIQUE.replace("_code_key", "_code_key, nulls_not_distinct: true"))
    site.sql(NOTES + "INSERT INTO notes VALUES (1, 'a', NULL), (2, 'a', NULL)")
    (finding,) = [f for f in site.stops() if f.code == "duplicates"]
    assert "(a, NULL) 2 times" in finding.fact
    site.sql("DELETE FROM notes WHERE id = 1")
    if site.app.info.server_version >= 150000:
        site.execute()
        assert site.verify() == []
        assert site.one(DEFINITION) == "UNIQUE NULLS NOT DISTINCT (code, size)"
        assert site.state() is State.DONE


def test_the_same_constraint_is_adopted_whatever_its_name(site_of: OpenSite) -> None:
    site = site_of(UNIQUE)
    site.sql(NOTES + "ALTER TABLE notes ADD CONSTRAINT other UNIQUE (code, size) WITH (fillfactor = 70)")
    assert (site.state(), site.stops()) == (State.DONE, [])
    site.execute()
    assert indexes(site) == ["other"]
    site.sql("ALTER TABLE notes DROP CONSTRAINT other")
    assert [f.code for f in site.verify()] == ["key_gone"]


def test_names_that_need_quotes_are_the_same_constraint(site_of: OpenSite) -> None:
    site = site_of(plan_of('add_unique: {table: notes, columns: [Code, size], name: "Notes Code"}'))
    site.sql('CREATE TABLE notes ("Code" text, size int)')
    site.execute()
    assert site.verify() == []


@pytest.mark.parametrize(
    ("when", "definition"),
    [("initially immediate", "DEFERRABLE"), ("initially deferred", "DEFERRABLE INITIALLY DEFERRED")],
)
def test_a_deferrable_constraint(site_of: OpenSite, when: str, definition: str) -> None:
    site = site_of(UNIQUE.replace("_code_key", f"_code_key, deferrable: {when}"))
    site.sql(NOTES)
    site.execute()
    assert site.one(DEFINITION) == f"UNIQUE (code, size) {definition}"
    assert site.verify() == []


def test_a_column_that_may_be_null_is_refused(site_of: OpenSite) -> None:
    """By `check`, unless an earlier step sets it NOT NULL, and by the run: the index is not even built."""
    text = "add_primary_key: {table: notes, columns: [id, size]}"
    site = site_of(plan_of(text))
    site.sql(NOTES + "INSERT INTO notes VALUES (1, 'a', 1)")
    (finding,) = site.stops()
    assert finding.code == "key_column_nullable"
    assert "set_not_null: {table: notes, column: size}" in finding.remedy
    with pytest.raises(VerificationFailed, match="may be NULL"):
        site.execute()
    assert indexes(site) == []
    site = site_of(plan_of("set_not_null: {table: notes, column: size}", text, name="two_steps"))
    assert site.stops() == []
    site.execute_all()
    assert site.verify() == []


def test_not_null_dropped_during_the_build_is_noticed(site_of: OpenSite, shop: str) -> None:
    """The server would scan the table in the window."""
    site = site_of(PRIMARY)
    site.sql(NOTES + "INSERT INTO notes VALUES (1, 'a', 1)")
    with ThreadPoolExecutor(1) as pool:
        with old_snapshot(shop):
            run = pool.submit(site.execute)
            await_true(lambda: is_waiting_for_snapshots(site.app, site.work_pid))
            site.sql(NOT_NULL.format("false"))
        with pytest.raises(VerificationFailed, match="may be NULL"):
            run.result()
    assert site.state() is State.PARTIAL
    site.sql(NOT_NULL.format("true"))
    site.execute()
    assert site.verify() == []


def test_a_partitioned_root_is_refused(site_of: OpenSite) -> None:
    site = site_of(UNIQUE)
    site.sql("CREATE TABLE notes (code text, size int) PARTITION BY HASH (code)")
    assert [f.code for f in site.stops()] == ["partitioned"]
