"""set_not_null: a check is there only while no row is NULL, and never stays in the application's way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from online_migrate.errors import VerificationFailed
from online_migrate.events import LateRows
from online_migrate.operations.base import Context, State
from online_migrate.operations.set_not_null import ROUNDS, SetNotNull, SetNotNullParams
from tests.operations.cases import EMPTY_COLUMN
from tests.operations.conftest import OpenSite
from tests.operations.site import Site, plan_of

PLAN = plan_of(
    "backfill: {table: transactions, column: bot_id, value: 1}",
    "set_not_null: {table: transactions, column: bot_id}",
    stage="pace: {duty: 100%}",
)
FORGET = "UPDATE transactions SET bot_id = NULL WHERE id = (SELECT max(id) FROM transactions)"
AN_OLD_ROW = "UPDATE transactions SET amount_kopeks = 0 WHERE bot_id IS NULL RETURNING id"
CHECKS = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'transactions'::regclass AND contype = 'c'"


class BesideAForgetfulWriter(SetNotNull):
    """The same operation, with somebody who writes NULL at the worst moment: after the proof, before the check."""

    def __init__(self, forget: Callable[[], object], *, times: int) -> None:
        self._forget = forget
        self._times = times

    def _prove(self, context: Context, params: SetNotNullParams) -> None:
        super()._prove(context, params)
        if self._times:
            self._times -= 1
            self._forget()


@pytest.fixture
def site(site_of: OpenSite) -> Site:
    """Backfilled, and proven."""
    site: Site = site_of(PLAN)
    site.sql(EMPTY_COLUMN)
    site.execute(site.step("backfill"))
    return site


def execute(site: Site, *, times: int) -> None:
    operation = BesideAForgetfulWriter(lambda: site.sql(FORGET), times=times)
    params = site.step().spec.params
    assert isinstance(params, SetNotNullParams)
    operation.execute(site.context(), params)


def test_a_null_after_the_proof_is_mended(site: Site) -> None:
    """The check goes at once, the backfill's own sweep gives the row its value, and the second round ends it."""
    execute(site, times=1)
    assert site.state() is State.DONE
    assert site.one("SELECT bot_id FROM transactions ORDER BY id DESC LIMIT 1") == 1
    assert len(site.heard.of(LateRows)) >= 1
    assert site.one(CHECKS) == 0


def test_somebody_who_keeps_writing_nulls_is_not_fought(site: Site) -> None:
    """Exit 5, and the check is gone: the row that is still NULL can be updated, so the application fails nowhere."""
    with pytest.raises(VerificationFailed, match="transactions: NULLs keep being written into bot_id"):
        execute(site, times=ROUNDS)
    assert site.one(CHECKS) == 0
    assert len(site.sql(AN_OLD_ROW)) == 1
    assert site.state() is State.ABSENT
    site.execute()
    assert site.state() is State.DONE


def test_a_column_that_nobody_fills_is_refused_with_a_row(site_of: OpenSite) -> None:
    """Without a backfill of the column in the plan a NULL is the operator's: named by its place, and nothing is changed."""
    site = site_of(plan_of("set_not_null: {table: transactions, column: bot_id}"))
    site.sql(EMPTY_COLUMN)
    before = site.schema()
    with pytest.raises(VerificationFailed, match=r"rows without bot_id, e.g. at ctid \(0,1\)"):
        site.execute()
    assert site.schema() == before


def test_a_check_left_over_nulls_is_taken_away(site: Site) -> None:
    """A crash after the check, and a row that came before it: VALIDATE finds it, the check goes, the sweep mends, it ends."""
    site.sql(
        FORGET + ";ALTER TABLE transactions ADD CONSTRAINT online_migrate_bot_id_not_null"
        " CHECK (bot_id IS NOT NULL) NOT VALID"
    )
    assert site.state() is State.PARTIAL
    site.execute()
    assert site.state() is State.DONE
    assert site.verify() == []


def test_nobody_scans_under_the_strongest_lock(site: Site) -> None:
    """SET NOT NULL after the valid check reads no row: the server says so at debug level."""
    said: list[str] = []
    site.sessions.work.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    site.sessions.work.execute("SET client_min_messages = debug1")
    site.execute()
    assert any("existing constraints on column" in s and "are sufficient" in s for s in said)


def test_a_nullable_column_is_seen(site: Site) -> None:
    """Somebody takes NOT NULL away: verify says so."""
    site.execute()
    site.sql("ALTER TABLE transactions ALTER bot_id DROP NOT NULL")
    (finding,) = site.verify()
    assert finding.fact.startswith("transactions.bot_id is not NOT NULL")
