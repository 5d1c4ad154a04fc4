"""What operations do to a partitioned table, root and partitions on every level and in any schema: locks,
crashes, an application beside them.
"""

from __future__ import annotations

from typing import Final

import pytest

from online_migrate.operations.contract.base import Statement
from online_migrate.operations.contract.state import State
from tests.operations.beside import Eyes, Writer, await_true, from_the_side, read_relations
from tests.operations.conftest import OpenSite
from tests.operations.driven import Cut, cut_off_after, locks_of, longest_window_s
from tests.operations.site import Site, plan_of

TREE: Final = """
    CREATE TABLE bots (id int PRIMARY KEY); INSERT INTO bots VALUES (1);
    CREATE SCHEMA old;
    CREATE TABLE parcels (id int NOT NULL, bot_id int) PARTITION BY RANGE (id);
    CREATE TABLE parcels_1 PARTITION OF parcels FOR VALUES FROM (1) TO (100);
    CREATE TABLE parcels_2 PARTITION OF parcels FOR VALUES FROM (100) TO (200) PARTITION BY LIST (id);
    CREATE TABLE "parcels 2a" PARTITION OF parcels_2 DEFAULT;
    CREATE TABLE old.parcels_0 PARTITION OF parcels DEFAULT;
    INSERT INTO parcels SELECT n, 1 FROM generate_series(1, 300) n;"""
STEPS: Final = (
    "create_index: {table: parcels, name: idx_<table>_bot_id, columns: [bot_id]}",
    "add_foreign_key: {table: parcels, column: bot_id, references: bots.id, on_delete: cascade}",
    "set_not_null: {table: parcels, column: bot_id}",
    "add_check: {table: parcels, name: one, check: bot_id > 0}",
)
TRAFFIC: Final = (
    "INSERT INTO parcels VALUES (7, 1)",
    "UPDATE parcels SET bot_id = 1 WHERE id = 150",
    "INSERT INTO parcels VALUES (500, 1)",
    "DELETE FROM parcels WHERE id = 7",
    "INSERT INTO bots VALUES (2) ON CONFLICT DO NOTHING",
)
NOISE_S: Final = 0.25

every_step = pytest.mark.parametrize("step", STEPS, ids=lambda s: s.partition(":")[0])


def site_with(site_of: OpenSite, step: str) -> Site:
    site = site_of(plan_of(step))
    site.sql(TREE)
    return site


def statements_of(site: Site) -> tuple[Statement, ...]:
    step = site.step()
    return site.operation(step).statements(site.place(step), step.spec.params)


@every_step
def test_absent_becomes_done_and_stays(site_of: OpenSite, step: str) -> None:
    """Root and partitions; once more and nothing changes."""
    site = site_with(site_of, step)
    assert site.state() is State.ABSENT
    assert site.stops() == []
    site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])
    schema = site.schema()
    site.execute()
    assert site.schema() == schema


@every_step
def test_declared_locks_are_those_that_its_sql_takes(site_of: OpenSite, step: str) -> None:
    """Each window in turn: on root, partitions, parent and indexes, none more and none less.

    A concurrent build is made plainly here; its locks are those of a table without partitions.
    """
    site = site_with(site_of, step)
    statements = statements_of(site)
    for group in sorted({s.group for s in statements}):
        window = [s for s in statements if s.group == group]
        if any("CONCURRENTLY" in s.text for s in window):
            site.sql("; ".join(s.text.replace(" CONCURRENTLY", "") for s in window))
            continue
        declared = {n.relation: n.mode for s in window for n in s.locks}
        observed = locks_of(site, window, read_relations(site.app))
        assert from_the_side(observed) == from_the_side(declared), [s.text for s in window]
    assert site.state() is State.DONE  # the statements that explain prints are all that is needed


@every_step
def test_cut_off_anywhere_it_converges(site_of: OpenSite, step: str) -> None:
    """The runner dies before its 1st statement, its 2nd, 4th … 200th; the next one goes on."""
    site = site_with(site_of, step)
    cuts = 0
    for statements in (0, 1, 2, 4, 7, 12, 20, 33, 54, 88, 142, 200):
        try:
            with cut_off_after(site, statements):
                site.execute()
            break
        except Cut:
            cuts += 1
            site.sessions.close()
            site.sessions.open()
    else:
        site.execute()
    assert cuts >= 3
    assert (site.state(), site.verify()) == (State.DONE, [])
    assert site.one("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert site.one("SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 0
    assert site.one("SELECT count(*) FROM pg_constraint WHERE conname LIKE 'online_migrate%'") == 0


@every_step
def test_an_application_writes_on(site_of: OpenSite, shop: str, step: str) -> None:
    """No lock that was not declared is held, no statement fails, or waits longer than for a window."""
    site = site_with(site_of, step)
    declared = {n.relation: n.mode for n in site.operation().locks(site.place(), site.step().spec.params)}
    with Writer(shop, TRAFFIC) as writer, Eyes(shop, site.work_pid) as eyes:
        site.execute()
        written = writer.count
        await_true(lambda: writer.count > written + 4 or writer.errors)
    assert writer.errors == []
    held = from_the_side(eyes.held)
    assert {n: m for n, m in held.items() if n not in declared or m > declared[n]} == {}
    assert writer.longest_s < longest_window_s(site) + NOISE_S


@pytest.mark.parametrize(
    ("step", "other", "code", "table"),
    [
        (
            STEPS[0],
            'CREATE INDEX "idx_parcels 2a_bot_id" ON "parcels 2a" (id)',
            "index_conflict",
            "parcels 2a",
        ),
        (STEPS[0], "CREATE INDEX idx_parcels_0_bot_id ON old.parcels_0 (id)", "index_conflict", "parcels_0"),
        (
            STEPS[1],
            "ALTER TABLE old.parcels_0 ADD CONSTRAINT parcels_bot_id_fkey CHECK (bot_id > 0)",
            "foreign_key_conflict",
            "parcels_0",
        ),
    ],
)
def test_what_a_partition_has_of_that_name_is_a_conflict(
    site_of: OpenSite, step: str, other: str, code: str, table: str
) -> None:
    """Found by check, not by the server in the middle of the run."""
    site = site_with(site_of, step)
    site.sql(other)
    (finding,) = site.stops()
    assert finding.code == code
    assert table in finding.fact


def test_an_index_that_a_partition_has_already_is_attached(site_of: OpenSite) -> None:
    """Of the same name and definition: nothing is built twice."""
    site = site_with(site_of, STEPS[0])
    site.sql("CREATE INDEX idx_parcels_1_bot_id ON parcels_1 (bot_id)")
    site.execute()
    assert site.state() is State.DONE
    assert site.one("SELECT count(*) FROM pg_index WHERE indrelid = 'parcels_1'::regclass") == 1


def test_rows_without_a_parent_are_found_in_their_partition(site_of: OpenSite) -> None:
    site = site_with(site_of, STEPS[1])
    site.sql("INSERT INTO parcels VALUES (150, 9)")
    (finding,) = site.stops()
    assert finding.code == "orphans"
    assert "parcels 2a" in finding.fact


def test_partitions_that_are_foreign_tables_are_refused(site_of: OpenSite) -> None:
    """Another server has their rows: no index, no key, no NOT NULL from here."""
    site = site_of(plan_of(STEPS[0]))
    site.sql(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        " CREATE TABLE parcels (id int, bot_id int) PARTITION BY RANGE (id);"
        " CREATE FOREIGN TABLE far PARTITION OF parcels DEFAULT SERVER s"
    )
    (finding,) = site.stops()
    assert finding.code == "foreign_partition"
    assert "public.far" in finding.fact
