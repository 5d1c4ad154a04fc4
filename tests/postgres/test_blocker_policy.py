"""Ending blocking sessions: off by default, by age and pattern, and with those spared whose end costs more
than a wait.
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from online_migrate.errors import LockNotAcquired
from online_migrate.events import Note
from online_migrate.postgres.blocker_policy import BlockerPolicy, why_spared
from online_migrate.postgres.blockers import Blocker
from tests.locks.beside import Site, blocker, ddl, in_thread, need, pause

POLICY = BlockerPolicy(matching="report", older_than_s=0.2, terminate_after_s=None)
BLOCKER = Blocker(
    pid=4711,
    relation="child",
    mode="AccessShareLock",
    is_granted=True,
    user="shop",
    application="report",
    state="active",
    backend_type="client backend",
    age_s=10.0,
    idle_s=0.0,
    query="SELECT 1",
    prepared=None,
)
ADD = "ALTER TABLE public.child ADD COLUMN extra int"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"backend_type": "autovacuum worker", "query": "autovacuum: VACUUM t (to prevent wraparound)"},
            "wraparound",
        ),
        ({"backend_type": "walsender"}, "walsender"),
        ({"is_superuser": True}, "superuser"),
        ({"mode": "AccessExclusiveLock"}, "on purpose"),
        ({"mode": "ShareRowExclusiveLock"}, "on purpose"),
        ({"has_written": True}, "written"),
        ({"prepared": "x", "pid": None}, "prepared"),
        ({"standby": "host=replica"}, "standby"),
        ({"age_s": 0.1}, "old enough"),
        ({"age_s": None}, "old enough"),
        ({"application": "psql", "user": "shop"}, "match"),
        ({}, None),
    ],
)
def test_who_is_spared(changes: dict[str, object], why: str | None) -> None:
    """Each rule alone spares; what no rule spares may be ended."""
    found = why_spared(replace(BLOCKER, **changes), POLICY)  # type: ignore[arg-type]
    assert (found is None) if why is None else (found is not None and why in found)


def test_writers_only_where_the_plan_gives_them_up() -> None:
    """A transaction that has written is ended only where the plan says that it may lose that."""
    written = replace(BLOCKER, has_written=True)
    assert why_spared(written, POLICY)
    assert why_spared(written, replace(POLICY, spare_writers=False)) is None


def as_application(site: Site, statement: str) -> psycopg.Connection:
    """A session of an ordinary role: superusers are spared."""
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE om_shop LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;"
            "GRANT SELECT, UPDATE ON public.child TO om_shop"
        )
    session = psycopg.connect(site.dsn, application_name="report", user="om_shop")
    session.execute(statement.encode())
    return session


def test_off_unless_asked(site: Site) -> None:
    """Without a policy no session is ended, however long it blocks."""
    with as_application(site, "SELECT count(*) FROM public.child") as other:
        pause(0.3)
        with pytest.raises(LockNotAcquired):
            site.window(lock_wait_s=0.6).run([need("child")], ddl(ADD))
        other.execute("SELECT 1")
        other.rollback()


def test_a_query_is_cancelled(site: Site) -> None:
    """A blocking query that is old enough is cancelled, its session lives on; it is reported."""
    with as_application(site, "SELECT count(*) FROM public.child") as other:
        with in_thread(lambda: other.execute("SELECT pg_sleep(20)")) as errors:
            pause(0.3)
            site.window(policy=POLICY).run([need("child")], ddl(ADD))
        assert isinstance(errors[0], psycopg.errors.QueryCanceled)
        other.rollback()
        other.execute("SELECT 1")
        other.rollback()
    assert "extra" in site.columns("child")
    assert "pg_cancel_backend ended" in site.heard.of(Note)[0].message


def test_an_idle_session_is_terminated_where_the_plan_says_so(site: Site) -> None:
    """There is nothing to cancel in an idle transaction; it is ended only by terminate_after."""
    with as_application(site, "SELECT count(*) FROM public.child") as other:
        pause(0.3)
        with pytest.raises(LockNotAcquired):
            site.window(policy=POLICY, lock_wait_s=0.6).run([need("child")], ddl(ADD))
        policy = replace(POLICY, terminate_after_s=0.1)
        site.window(policy=policy).run([need("child")], ddl(ADD))
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")
    assert "extra" in site.columns("child")


def test_a_superuser_is_spared(site: Site) -> None:
    """The administrator's own session stays, whatever the pattern says."""
    policy = replace(POLICY, matching=".", terminate_after_s=0.1)
    with blocker(site.dsn) as other:
        pause(0.4)
        with pytest.raises(LockNotAcquired):
            site.window(policy=policy, lock_wait_s=0.8).run([need("child")], ddl(ADD))
        other.execute("SELECT 1")
    assert site.heard.of(Note) == []
