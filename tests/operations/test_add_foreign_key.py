"""add_foreign_key: two windows' work, and what is there already under another name is taken up."""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.errors import VerificationFailed
from online_migrate.operations.base import State
from tests.operations.cases import BOTS, FILLED_COLUMN
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

PLAN = plan_of(
    "add_foreign_key: {table: transactions, column: bot_id, references: bots.id, on_delete: cascade}"
)
BY_HAND = "ALTER TABLE transactions ADD CONSTRAINT by_hand FOREIGN KEY (bot_id) REFERENCES bots (id) ON DELETE CASCADE"
KEYS = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'transactions'::regclass AND confrelid = 'bots'::regclass"


def test_an_orphan_stops_it_and_new_ones_are_refused(site_of: OpenSite) -> None:
    """Exit 5 with the row's key; the key stays NOT VALID, so that no further orphan comes; mended, it goes on."""
    site = site_of(PLAN)
    site.sql(
        BOTS
        + FILLED_COLUMN
        + "UPDATE transactions SET bot_id = 99 WHERE id = (SELECT min(id) FROM transactions)"
    )
    with pytest.raises(VerificationFailed, match=r"Key \(bot_id\)=\(99\) is not present"):
        site.execute()
    assert site.state() is State.PARTIAL
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        site.sql("UPDATE transactions SET bot_id = 98 WHERE id = (SELECT max(id) FROM transactions)")
    site.sql("UPDATE transactions SET bot_id = 1 WHERE bot_id = 99")
    site.execute()
    assert site.state() is State.DONE


@pytest.mark.parametrize("is_valid", [True, False])
def test_a_key_of_another_name_is_taken_up(site_of: OpenSite, is_valid: bool) -> None:
    """The same by definition: it is validated where it is not, and no second one is added."""
    site = site_of(PLAN)
    site.sql(BOTS + FILLED_COLUMN + BY_HAND + ("" if is_valid else " NOT VALID"))
    assert site.state() is (State.DONE if is_valid else State.PARTIAL)
    site.execute()
    assert site.state() is State.DONE
    assert site.one(KEYS) == 1


def test_a_parent_that_is_not_there_is_found_at_check(site_of: OpenSite) -> None:
    """And one that an earlier step makes is not missed."""
    site = site_of(PLAN)
    site.sql(FILLED_COLUMN)
    (finding,) = site.stops()
    assert finding.fact == "transactions.bot_id should refer to bots.id, which is not there"
    later = site_of(
        PLAN.replace("plan: harness", "plan: other").replace(
            "steps:\n", "steps:\n      - create_tables: multi_tenant.sql\n"
        )
    )
    assert later.stops() == []


def test_a_partitioned_table_is_refused(site_of: OpenSite) -> None:
    """NOT VALID on a root needs 18, and would lock every partition at once; its partitions take the key one by one."""
    site = site_of(PLAN.replace("transactions", "logs"))
    site.sql(BOTS + "CREATE TABLE logs (bot_id integer) PARTITION BY LIST (bot_id)")
    assert [f.code for f in site.stops()] == ["partitioned"]
