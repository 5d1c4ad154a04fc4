"""swap_unique: found by columns, dropped in one window, and never before the new one keeps duplicates out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from online_migrate.errors import VerificationFailed
from online_migrate.events import LockHeld
from online_migrate.operations.contract.base import Context, State, Statement
from online_migrate.operations.shared import steps
from tests.operations.cases import TWO_TENANTS
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

USERS = plan_of("swap_unique: {table: users, from: [telegram_id], to: idx_users_telegram_bot}")
GROUPS = plan_of("swap_unique: {table: promo_groups, from: [name], to: idx_promo_groups_bot_name}")
UNIQUES = (
    "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '%s'::regclass AND indisunique"
    " ORDER BY 1"
)


def uniques(rows: list[tuple[str]]) -> list[str]:
    return [name for (name,) in rows]


def test_a_unique_index_without_a_constraint_goes(site_of: OpenSite) -> None:
    """On the real shop users(telegram_id) is an index of the ORM: DROP CONSTRAINT would say 'skipping'.
    Afterwards two tenants hold the same telegram_id, and one tenant does not hold it twice; uniques on other
    columns stay.
    """
    site = site_of(USERS)
    site.sql(TWO_TENANTS)
    site.execute()
    assert uniques(site.sql(UNIQUES % "users")) == [
        "idx_users_telegram_bot", "users_pkey", "users_referral_code_key", "users_remnawave_uuid_key",
    ]  # fmt: skip
    columns = (
        "telegram_id, status, language, balance_kopeks, used_promocodes, has_had_paid_subscription,"
        " auto_promo_group_assigned"
    )
    copy = (
        f"INSERT INTO users ({columns}, created_at, updated_at, bot_id) SELECT {columns}, now(), now(),"
        " %s FROM users WHERE id = 1"
    )
    site.sql(copy % 2)
    with pytest.raises(Exception, match="idx_users_telegram_bot"):
        site.sql(copy % 1)


def test_two_constraints_go_in_one_window(site_of: OpenSite) -> None:
    """promo_groups(name) is unique twice under two names; after one window none is
    left, in one transaction.
    """
    site = site_of(GROUPS)
    site.sql(TWO_TENANTS)
    site.execute()
    assert uniques(site.sql(UNIQUES % "promo_groups")) == ["idx_promo_groups_bot_name", "promo_groups_pkey"]
    (window,) = site.heard.of(LockHeld)
    assert len([lock for lock in window.locks if "promo_groups" in lock]) == 3  # the table and two indexes


def test_a_foreign_key_that_hangs_on_the_old_one_stops_it(site_of: OpenSite) -> None:
    """Named at check, with its table; had the run gone on, the window would have changed nothing."""
    site = site_of(USERS)
    site.sql(TWO_TENANTS + "CREATE TABLE devices (tg bigint REFERENCES users (telegram_id))")
    before = site.schema()
    (finding,) = [f for f in site.stops() if f.code == "foreign_key_on_unique"]
    assert "devices" in finding.fact
    assert "ix_users_telegram_id" in finding.fact
    with pytest.raises(Exception, match="depend"):
        site.execute()
    assert site.schema() == before


CHANGES: list[tuple[str, str]] = [
        ("DROP INDEX idx_users_telegram_bot", "there is no unique index idx_users_telegram_bot"),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_users_telegram_bot'::regclass",
            "is not valid",
        ),
        ("ALTER TABLE users ALTER bot_id DROP NOT NULL", "bot_id of idx_users_telegram_bot can be NULL"),
        (
            ("DROP INDEX idx_users_telegram_bot; CREATE INDEX idx_users_telegram_bot ON users (telegram_id,"
                " bot_id)"),
            "there is no unique index",
        ),
        (
            ("DROP INDEX idx_users_telegram_bot;"
            " CREATE UNIQUE INDEX idx_users_telegram_bot ON users (telegram_id, bot_id) WHERE bot_id > 1"),
            "over the whole of users",
        ),
        (
            ("DROP INDEX idx_users_telegram_bot; CREATE UNIQUE INDEX idx_users_telegram_bot ON users (id,"
                " bot_id)"),
            "is on (id, bot_id), which is not (telegram_id) and more",
        ),
        (
            ("DROP INDEX idx_users_telegram_bot; ALTER TABLE users ADD CONSTRAINT idx_users_telegram_bot"
                " UNIQUE (telegram_id, bot_id) DEFERRABLE"),
            "is a DEFERRABLE constraint",
        ),
        (
            ("DROP INDEX idx_users_telegram_bot; CREATE UNIQUE INDEX idx_users_telegram_bot ON users"
                " (telegram_id)"),
            "is on (telegram_id), which is not (telegram_id) and more",
        ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_without_a_new_one_that_holds_the_old_one_stays(site_of: OpenSite, change: str, words: str) -> None:
    """Missing, invalid, nullable, not unique, partial, on other columns, or the old one itself: refused, exit
    5, nothing changed.
    """
    site = site_of(USERS)
    site.sql(TWO_TENANTS + change)
    before = site.schema()
    with pytest.raises(VerificationFailed, match="the old unique stays") as refused:
        site.execute()
    assert words in refused.value.message
    assert site.schema() == before


@pytest.mark.parametrize("change", [change for change, _ in CHANGES])
def test_what_is_changed_while_the_window_waits_is_seen_under_the_lock(
    site_of: OpenSite, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The window may wait for half an hour; the new unique is asked for once more before the drops, in their
    transaction.
    """
    site = site_of(USERS)
    site.sql(TWO_TENANTS)

    def after_the_wait(context: Context, statements: Sequence[Statement]) -> None:
        site.sql(change)
        steps.run_window(context, statements)

    monkeypatch.setattr("online_migrate.operations.swap_unique.run_window", after_the_wait)
    with pytest.raises(
        VerificationFailed, match=r"the old unique stays: under the lock, idx_users_telegram_bot"
    ):
        site.execute()
    assert "ix_users_telegram_id" in uniques(site.sql(UNIQUES % "users"))


def test_explain_shows_what_is_asked_under_the_lock(site_of: OpenSite) -> None:
    """The assertion is a statement like any other: what explain prints is what run executes."""
    site = site_of(USERS)
    site.sql(TWO_TENANTS)
    first, drop = site.operation().statements(site.place(), site.step().spec.params)
    assert "idx_users_telegram_bot" in first.text
    assert first.note
    assert drop.text.startswith("DROP INDEX")


def test_nulls_that_are_not_distinct_need_no_not_null(site_of: OpenSite) -> None:
    """From 15 on such a unique keeps NULLs apart, too."""
    site = site_of(USERS)
    if site.app.info.server_version < 150000:
        return
    site.sql(
        "ALTER TABLE users ADD COLUMN bot_id integer DEFAULT 1;"
        "CREATE UNIQUE INDEX idx_users_telegram_bot ON users (telegram_id, bot_id) NULLS NOT DISTINCT"
    )
    site.execute()
    assert site.state() is State.DONE


def test_a_unique_that_comes_back_is_seen(site_of: OpenSite) -> None:
    """An ORM that makes its schema at start creates it again: verify names it."""
    site = site_of(USERS)
    site.sql(TWO_TENANTS)
    site.execute()
    site.sql("CREATE UNIQUE INDEX made_again ON users (telegram_id)")
    assert site.state() is State.ABSENT
    (finding,) = site.verify()
    assert "made_again" in finding.fact
    site.execute()
    assert site.verify() == []
