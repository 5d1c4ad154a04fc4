"""drop_default: from here on a forgotten column is an error and not the master's row."""

from __future__ import annotations

import psycopg
import pytest

from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of
from tests.operations.test_add_column import INSERT


def test_a_forgotten_column_is_an_error(site_of: OpenSite) -> None:
    """Before it the old release's INSERT gets the master's id; after it the INSERT fails, and one that names
    it works.
    """
    site = site_of(plan_of("drop_default: {table: transactions, column: bot_id}"))
    site.sql("ALTER TABLE transactions ADD COLUMN bot_id integer NOT NULL DEFAULT 1")
    site.sql(INSERT)
    site.execute()
    with pytest.raises(psycopg.errors.NotNullViolation):
        site.sql(INSERT)
    site.sql(INSERT.replace("(user_id", "(bot_id, user_id").replace("SELECT min(id)", "SELECT 2, min(id)"))
    assert site.verify() == []
    site.sql("ALTER TABLE transactions ALTER bot_id SET DEFAULT 1")
    (finding,) = site.verify()
    assert finding.code == "default_back"


def test_a_partition_loses_a_default_of_its_own(site_of: OpenSite) -> None:
    """A default that only the partition has is named at check, and dropped with the root's."""
    site = site_of(plan_of("drop_default: {table: parted, column: bot_id}"))
    site.sql(
        "CREATE TABLE parted (id int, bot_id int) PARTITION BY LIST (id);"
        " CREATE TABLE part PARTITION OF parted FOR VALUES IN (1);"
        " ALTER TABLE part ALTER bot_id SET DEFAULT 1"
    )
    (fact,) = [f.fact for f in site.preflight() if f.code == "still_given"]
    assert "part.bot_id" in fact
    site.execute()
    assert [f for f in site.preflight() if f.code == "still_given"] == []
    assert site.verify() == []
