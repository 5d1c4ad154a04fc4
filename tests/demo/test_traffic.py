"""The traffic is an application that fails loudly: every error is kept, latencies are what they were."""

from __future__ import annotations

import threading
from array import array

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_migrate.demo.release import KINDS
from online_migrate.demo.tenant import create_tenant
from online_migrate.demo.traffic import Failure, Record, Traffic, percentile
from tests.demo import by_hand

WRITTEN = (
    "users", "subscriptions", "transactions", "yookassa_payments", "subscription_events", "promocode_uses",
    "tickets", "ticket_messages", "sent_notifications", "user_messages",
)  # fmt: skip


def wait_for(traffic: Traffic, period: str, transactions: int) -> None:
    """Until the period has so many; the traffic is quick, so this is a second or two."""
    traffic.record.mark(period)
    for _ in range(600):
        if traffic.record.summary(period).transactions >= transactions:
            return
        threading.Event().wait(0.02)
    pytest.fail(f"fewer than {transactions} transactions in 12 s")


def last_keys(connection: psycopg.Connection) -> dict[str, int]:
    """How far the sequence of each table that the traffic writes has come."""
    return {
        table: value
        for table in WRITTEN
        for (value,) in connection.execute(f"SELECT last_value FROM {table}_id_seq").fetchall()
    }


def test_old_release_works_on_the_old_shop(shop: str) -> None:
    """On a shop without a migration no transaction fails, every kind runs, and ten tables are written."""
    with psycopg.connect(shop, autocommit=True) as connection:
        before = last_keys(connection)
        with Traffic(shop, per_second=600) as traffic:
            wait_for(traffic, "before", 400)
        assert traffic.record.failures == ()
        after = last_keys(connection)
    assert [table for table in WRITTEN if after[table] == before[table]] == []
    assert traffic.plan_invalidations == 0


def test_both_releases_work_through_a_swap(shop: str) -> None:
    """Old release, gate, new release, swap, second tenant with the same telegram ids: no failure in any of
    it.
    """
    with psycopg.connect(shop, autocommit=True) as connection:
        master = by_hand.add_bots(connection)
        with Traffic(shop, per_second=600) as traffic:
            wait_for(traffic, "old", 150)
            traffic.switch_to_new_release(master)
            by_hand.swap(connection)
            wait_for(traffic, "new", 150)
            tenant = create_tenant(connection)
            traffic.start_tenant(tenant)
            wait_for(traffic, "two tenants", 300)
        assert [str(f) for f in traffic.record.failures] == []
        rows = connection.execute(
            "SELECT count(*) FROM users m JOIN users t USING (telegram_id) WHERE m.bot_id = %s AND t.bot_id"
            " = %s",
            [master, tenant],
        ).fetchone()
        assert rows is not None
        assert rows[0] > 5  # the tenant's first customer, and those who registered there since


def test_new_release_never_forgets_its_bot(shop: str) -> None:
    """Once switch_to_new_release has returned no statement of the old release comes any more."""
    with psycopg.connect(shop, autocommit=True) as connection:
        master = by_hand.add_bots(connection)
        with Traffic(shop, per_second=600) as traffic:
            wait_for(traffic, "old", 50)
            traffic.switch_to_new_release(master)
            by_hand.swap(connection)  # from here on an insert without bot_id fails
            wait_for(traffic, "new", 200)
    assert [str(f) for f in traffic.record.failures] == []


def test_errors_are_kept(shop: str) -> None:
    """A statement that fails is a failure with its SQLSTATE and kind, counted once,
    and the traffic goes on.
    """
    with psycopg.connect(shop, autocommit=True) as connection, Traffic(shop, per_second=600) as traffic:
        wait_for(traffic, "before", 20)
        connection.execute("ALTER TABLE user_messages RENAME TO gone")
        wait_for(traffic, "during", 200)
        connection.execute("ALTER TABLE gone RENAME TO user_messages")
        wait_for(traffic, "after", 20)
    failures = [f for f in traffic.record.failures if f.period == "during"]
    assert failures
    assert {(f.kind, f.sqlstate) for f in failures} == {("announce", "42P01")}
    summary = traffic.record.summary("during")
    assert summary.failures == len(failures)
    assert summary.transactions > len(failures)


def test_two_rows_for_one_customer_are_a_failure(shop: str) -> None:
    """A look-up that gives two rows is an error of the application, although the database sees none."""
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute("DROP INDEX ix_promocodes_code")
        connection.execute("UPDATE promocodes SET code = 'SAME'")
        with Traffic(shop, per_second=600) as traffic:
            wait_for(traffic, "during", 100)
    assert {(f.kind, f.sqlstate) for f in traffic.record.failures} == {("redeem", "")}


def test_lost_connections_are_failures_and_are_opened_again(shop: str) -> None:
    """A connection that the server ends is a failure of its transaction; a new one takes its place."""
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'shop' AND datname = current_database()"
    )
    with psycopg.connect(shop, autocommit=True) as connection, Traffic(shop, per_second=600) as traffic:
        wait_for(traffic, "before", 20)
        connection.execute(ended)
        wait_for(traffic, "after", 100)
    assert {f.sqlstate for f in traffic.record.failures} <= {"57P01", ""}  # or the connection just breaks
    assert 0 < len(traffic.record.failures) <= 6
    assert traffic.record.summary("after").transactions > len(traffic.record.failures)


def test_a_new_column_invalidates_the_star_and_nothing_else(shop: str) -> None:
    """After ADD COLUMN a prepared SELECT * is refused once: counted as plan invalidation, not as failure."""
    with psycopg.connect(shop, autocommit=True) as connection, Traffic(shop, per_second=600) as traffic:
        wait_for(traffic, "before", 100)
        threading.Event().wait(0.5)
        for n in (1, 2):
            connection.execute(f"ALTER TABLE users ADD COLUMN added_{n} integer")
            threading.Event().wait(0.8)
    assert traffic.plan_invalidations == 2
    assert traffic.record.failures == ()


def test_percentiles_are_nearest_rank() -> None:
    """p50 and p99 of known latencies are the values that a reader would count out."""
    record = Record()
    record.mark("before")
    for n in range(1, 201):
        record.add("before", n / 1000)
    record.mark("during")
    record.add("during", 5.0)
    record.add_failure(Failure(period="during", kind="look_up", sqlstate="57014", message="canceled"))
    before, during = record.summary("before"), record.summary("during")
    assert (before.transactions, before.failures) == (200, 0)
    assert (before.p50_ms, before.p99_ms, before.longest_ms) == pytest.approx((100, 198, 200))
    assert (during.transactions, during.failures, during.longest_ms) == (2, 1, 5000)


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0.01, 1))
def test_percentile_covers_its_share(values: list[float], share: float) -> None:
    """At least the asked share of the values is not above the percentile, which is one of them."""
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(v <= found for v in values) >= share * len(values) * (1 - 1e-9)


def test_percentile_of_nothing() -> None:
    """A period without transactions has zeros, no error."""
    assert percentile(array("d"), 0.99) == 0.0


def test_every_kind_has_a_docstring() -> None:
    """The report names kinds of transactions; each says what the customer did."""
    assert all(kind.__doc__ for kind in KINDS)
