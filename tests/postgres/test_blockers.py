"""Each kind of blocking session is named as what it is."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from online_migrate.errors import LockNotAcquired
from online_migrate.events import LockHeld
from online_migrate.postgres.blockers import Blocker, read_blockers
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.server import Server
from tests.locks.beside import (
    Application,
    Site,
    await_true,
    blocker,
    ddl,
    in_thread,
    is_waiting,
    need,
    pause,
    site_on,
)
from tests.servers import start_own_server

SLOW_VACUUM = {
    "autovacuum_naptime": "1s",
    "autovacuum_vacuum_cost_delay": "20ms",
    "autovacuum_vacuum_cost_limit": "20",
    "autovacuum_vacuum_threshold": "0",
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_insert_threshold": "-1",
}


def one_blocker(site: Site, mode: LockMode = LockMode.ACCESS_EXCLUSIVE) -> Blocker:
    row = site.watch.execute("SELECT 'public.child'::regclass::oid::int8").fetchone()
    assert row is not None
    found = read_blockers(site.watch, [(row[0], mode)], mine=[site.work.info.backend_pid])
    assert found, "nobody is in the way"
    return found[0]


@pytest.mark.parametrize(
    ("application", "kind"),
    [("psql", "idle in transaction"), ("pg_dump", "pg_dump"), ("online-migrate work", "another migration")],
)
def test_a_session(site: Site, application: str, kind: str) -> None:
    """By its application's name, its state, or what it runs; with pid, user, age, and no value of its
    statement.
    """
    with blocker(
        site.dsn, "SELECT v AS hunter FROM public.child WHERE id = 4711", application=application
    ) as other:
        pause(0.1)
        found = one_blocker(site)
        text = str(found)
        assert f"pid {other.info.backend_pid} (postgres, {application})" in text
    assert found.kind == kind
    assert found.is_granted
    assert found.age_s is not None
    assert found.age_s > 0.05
    assert "idle for" in text
    assert "4711" not in text
    assert "holds ACCESS SHARE on child" in text


def test_a_prepared_transaction(site: Site) -> None:
    """It has no pid and no session: its name is what an operator can act on."""
    with psycopg.connect(site.dsn, autocommit=True) as other:
        other.execute("BEGIN; UPDATE public.child SET v = 1 WHERE id = 1; PREPARE TRANSACTION 'left behind'")
        try:
            found = one_blocker(site)
            with pytest.raises(LockNotAcquired, match="COMMIT PREPARED or ROLLBACK PREPARED"):
                site.window(lock_wait_s=0.3).run([need("child")], ddl("SELECT 1"))
        finally:
            other.execute("ROLLBACK PREPARED 'left behind'")
    assert found.kind == "prepared transaction"
    assert found.prepared == "left behind"
    assert found.pid is None


def test_only_conflicting_locks_count(site: Site) -> None:
    """A reader does not block a request for SHARE ROW EXCLUSIVE."""
    row = site.watch.execute("SELECT 'public.child'::regclass::oid::int8").fetchone()
    assert row is not None
    with blocker(site.dsn):
        assert read_blockers(site.watch, [(row[0], LockMode.SHARE_ROW_EXCLUSIVE)]) == ()
        assert read_blockers(site.watch, [(row[0], LockMode.ACCESS_EXCLUSIVE)])


def test_the_chain(site: Site) -> None:
    """A waiter is named with whom it waits for, and that one's blocker, to the end of the chain."""
    first = psycopg.connect(site.dsn)
    second = psycopg.connect(site.dsn)
    third = psycopg.connect(site.dsn)
    with first, second, third:
        first.execute("UPDATE public.parent SET note = 'a' WHERE id = 1")
        second.execute("UPDATE public.parent SET note = 'b' WHERE id = 2")
        third.execute("UPDATE public.child SET v = 1 WHERE id = 1")
        with (
            in_thread(lambda: second.execute("UPDATE public.parent SET note = 'b' WHERE id = 1")),
            in_thread(lambda: third.execute("UPDATE public.parent SET note = 'c' WHERE id = 2")),
        ):
            await_true(lambda: is_waiting(site.watch, second.info.backend_pid))
            await_true(lambda: is_waiting(site.watch, third.info.backend_pid))
            found = one_blocker(site)
            pids = (second.info.backend_pid, first.info.backend_pid)
            first.rollback()
            await_true(lambda: not is_waiting(site.watch, second.info.backend_pid))
            second.rollback()
        third.rollback()
    assert [link.split()[1] for link in found.chain] == [str(p) for p in pids]


@pytest.fixture(scope="module")
def slow_server() -> Iterator[Server]:
    """Its autovacuum starts at once and takes its time."""
    with start_own_server(SLOW_VACUUM) as server:
        yield server


@pytest.fixture(scope="module")
def slow_site(slow_server: Server) -> Iterator[Site]:
    with site_on(slow_server.dsn) as site:
        yield site


def await_autovacuum(site: Site) -> int:
    """Make dead rows until an autovacuum is at work on child; returns its pid.

    One that began before may be near its end: it is ended first.
    """
    query = "SELECT pid FROM pg_stat_progress_vacuum WHERE relid = 'public.child'::regclass"
    site.watch.execute(
        "INSERT INTO public.child SELECT i, 1 FROM generate_series(10001, 90000) i ON CONFLICT DO NOTHING"
    )
    site.watch.execute("UPDATE public.child SET w = w + 1")
    site.watch.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_progress_vacuum")
    await_true(lambda: site.watch.execute(query).fetchone() is not None, seconds=60)
    row = site.watch.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_an_ordinary_autovacuum_gives_way(slow_site: Site) -> None:
    """postgres-facts 5, repeated: SHARE UPDATE EXCLUSIVE makes it go after deadlock_timeout, while the
    application goes on.
    """
    pid = await_autovacuum(slow_site)
    found = one_blocker(slow_site)
    assert (found.pid, found.kind, found.is_autovacuum) == (pid, "autovacuum", True)
    with Application(slow_site.dsn) as application:
        slow_site.window().run([need("child")], ddl("ALTER TABLE public.child ADD COLUMN extra int"))
        assert application.longest_s < 0.2
    assert application.errors == []
    (held,) = slow_site.heard.of(LockHeld)
    assert held.waited_s < 0.05, "the strong lock was had at once: the wait was at the side"


def test_the_hammer_that_we_are_not(slow_site: Site) -> None:
    """The other half of the measurement: asked for at once with less than deadlock_timeout, the strong lock
    is never had.
    """
    await_autovacuum(slow_site)
    with psycopg.connect(slow_site.dsn, autocommit=True) as other:
        other.execute("SET deadlock_timeout = '10s'")  # so that on a busy machine, too, it is the later one
        for timeout in ("100ms", "500ms", "900ms"):
            other.execute(f"SET lock_timeout = '{timeout}'".encode())
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("ALTER TABLE public.child ADD COLUMN never int")


def test_a_vacuum_to_prevent_wraparound(slow_site: Site) -> None:
    """It never yields, so it is waited for outside and named, not asked behind: a real one."""
    slow_site.watch.execute(
        "ALTER TABLE public.child SET (autovacuum_enabled = off, autovacuum_freeze_max_age = 100000)"
    )
    slow_site.watch.execute("UPDATE public.child SET w = w + 1")
    slow_site.watch.execute("SET synchronous_commit = off")
    slow_site.watch.execute(
        "DO $$ BEGIN FOR i IN 1..110000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%public.child%to prevent wraparound%'"
        " AND backend_type = 'autovacuum worker'"
    )
    await_true(lambda: slow_site.watch.execute(query).fetchone() == (1,), seconds=20)
    found = one_blocker(slow_site)
    assert found.kind == "vacuum to prevent wraparound"
    assert not found.is_autovacuum
    with pytest.raises(LockNotAcquired, match="vacuum to prevent wraparound"):
        slow_site.window(lock_wait_s=1.5).run([need("child")], ddl("SELECT 1"))
