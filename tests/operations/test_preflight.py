"""What every operation asks of a table before it: is it one, and what is with the tables below it?"""

from __future__ import annotations

import pytest

from online_migrate.findings import (
    Severity,
)
from online_migrate.operations.contract.base import (
    State,
)
from online_migrate.postgres.locks import LockMode
from tests.operations.beside import Eyes, from_the_side
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

BELOW = """
    CREATE SCHEMA old;
    CREATE TABLE parcels (id int, bot_id int NOT NULL DEFAULT 1) PARTITION BY RANGE (id);
    CREATE TABLE parcels_1 PARTITION OF parcels FOR VALUES FROM (1) TO (9);
    CREATE TABLE old.parcels_0 PARTITION OF parcels DEFAULT;
    CREATE TABLE letters (id int, bot_id int NOT NULL DEFAULT 1);
    CREATE TABLE old_letters () INHERITS (letters);
    CREATE VIEW post AS SELECT 1 AS id, 2 AS bot_id;"""
BELOW_OF = {"parcels": ("public.parcels_1", "old.parcels_0"), "letters": ("public.old_letters",)}
STEPS = {
    "add_column": "add_column: {table: %s, column: note, type: text, new_rows: none}",
    "drop_default": "drop_default: {table: %s, column: bot_id}",
    "set_default": "set_default: {table: %s, column: bot_id, value: 2}",
    "add_check": "add_check: {table: %s, name: one, check: bot_id > 0}",
    "drop_not_null": "drop_not_null: {table: %s, column: bot_id}",
}


@pytest.mark.parametrize("table", ["parcels", "letters"])
@pytest.mark.parametrize("operation", STEPS)
def test_what_is_changed_along_is_declared(site_of: OpenSite, operation: str, table: str) -> None:
    """ADD COLUMN and DEFAULT go down to every partition and heir, in any schema: explain and check say it
    before.
    """
    site = site_of(plan_of(STEPS[operation] % table))
    site.sql(BELOW)
    (finding,) = [f for f in site.preflight() if f.code == "inherited"]
    assert finding.severity is Severity.WARN
    declared = {n.relation for n in site.operation().locks(site.place(), site.step().spec.params)}
    assert declared == {f"public.{table}", *BELOW_OF[table]}
    site.execute()
    assert site.state() is State.DONE


def test_analyze_declares_the_partitions_that_it_samples(site_of: OpenSite) -> None:
    """It goes down to each of them: what it holds is what it declares."""
    site = site_of(plan_of("analyze: {table: parcels}"))
    site.sql(BELOW + "INSERT INTO parcels SELECT n % 8 + 1 FROM generate_series(1, 50000) n;")
    with Eyes(site.app.info.dsn, site.work_pid) as eyes:
        site.execute()
    declared = {n.relation for n in site.operation().locks(site.place(), site.step().spec.params)}
    assert from_the_side(eyes.held).keys() <= declared
    assert declared >= {"public.parcels", "public.parcels_1"}
    assert LockMode.ACCESS_EXCLUSIVE not in eyes.held.values()


@pytest.mark.parametrize(
    "step",
    [
        "swap_unique: {table: %s, from: [id], to: idx_x}",
    ],
)
def test_a_partitioned_root_is_refused_with_the_partitions_way(site_of: OpenSite, step: str) -> None:
    """One sentence for all, and none runs into the server's refusal in the middle of the night."""
    site = site_of(plan_of(step % "parcels"))
    site.sql(BELOW)
    (finding,) = [f for f in site.stops() if f.code == "partitioned"]
    assert finding.remedy.startswith("name its partitions")


@pytest.mark.parametrize("step", STEPS.values())
def test_a_view_is_no_table(site_of: OpenSite, step: str) -> None:
    """Said before the run, not by the server's error in it."""
    site = site_of(plan_of(step % "post"))
    site.sql(BELOW)
    assert "not_a_table" in [f.code for f in site.stops()]
