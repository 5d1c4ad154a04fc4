"""The lock window beside real sessions: nothing of the application waits longer than it may, nothing is done
by halves.
"""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import sql

from online_migrate.errors import Interrupted, LockNotAcquired, UndeclaredLock
from online_migrate.events import (
    BlockersSeen,
    LockAttemptFailed,
    LockHeld,
    WaitContinues,
    WaitEnded,
    WaitStarted,
)
from online_migrate.postgres.ladder import REST_S
from online_migrate.postgres.lock_window import AT_ONCE_S
from online_migrate.postgres.locks import LockMode
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
)

ADD = "ALTER TABLE public.child ADD COLUMN extra int"
SLACK_S = 0.15
"""two cores, several test runs: a thread may get its turn that much late"""


def test_had_at_once(site: Site) -> None:
    """Without a blocker the change is made at the first attempt, and what was held
    is reported with its times.
    """
    site.window().run([need("child")], ddl(ADD))
    (held,) = site.heard.of(LockHeld)
    assert "extra" in site.columns("child")
    assert held.attempts == 1
    assert held.locks == ("ACCESS EXCLUSIVE on public.child",)
    assert 0 < held.held_s < 0.5
    assert 0 <= held.waited_s < 0.05


def test_a_blocker_that_never_goes(site: Site) -> None:
    """Exit 4, its pid named, nothing changed, and no application session ever waited behind it."""
    with blocker(site.dsn) as other, Application(site.dsn) as application:
        pid = other.info.backend_pid
        with pytest.raises(LockNotAcquired) as caught:
            site.window(lock_wait_s=1.0).run([need("child")], ddl(ADD))
        assert application.longest_s < 0.05 + SLACK_S
        assert application.errors == []
    assert caught.value.exit_code == 4
    assert f"pid {pid}" in str(caught.value)
    assert "idle in transaction" in str(caught.value)
    assert "extra" not in site.columns("child")
    assert site.work.info.transaction_status.name == "IDLE"
    assert site.heard.of(WaitStarted)
    assert site.heard.of(WaitEnded)


def test_a_blocker_that_is_always_new(site: Site) -> None:
    """Young blockers are asked behind by the ladder; attempts bound it, and no statement waits longer than a
    rung.
    """
    window = site.window(attempts=4, blocker_age_s=60.0)
    with (
        blocker(site.dsn),
        Application(site.dsn) as application,
        pytest.raises(LockNotAcquired, match="in 4 attempts"),
    ):
        window.run([need("child")], ddl(ADD))
    given_way = site.heard.of(LockAttemptFailed)
    assert [g.attempt for g in given_way] == [1, 2, 3]
    assert application.longest_s < 0.05 * 1.5**3 + SLACK_S
    assert application.errors == []
    assert "extra" not in site.columns("child")


def test_a_blocker_that_comes_and_goes(site: Site) -> None:
    """It is waited for outside the queue; the lock is acquired as soon as it has ended, and the application
    never noticed.
    """
    with blocker(site.dsn) as other, Application(site.dsn) as application:
        pause(0.25)
        with in_thread(lambda: site.window().run([need("child")], ddl(ADD))) as errors:
            site.heard.await_one(WaitStarted)
            pause(0.5)
            other.rollback()
        longest_s = application.longest_s
    assert errors == []
    (held,) = site.heard.of(LockHeld)
    assert longest_s < 0.8 + held.held_s + SLACK_S
    assert application.errors == []
    assert "extra" in site.columns("child")


def test_another_blocker_is_told_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after the 10 s in which one that stays is reported once: until then status would name a pid that
    has ended.
    """
    monkeypatch.setattr("online_migrate.waiting.REPORT_CHANGED_S", 0.0)
    with blocker(site.dsn) as first, blocker(site.dsn) as second:
        pid = second.info.backend_pid
        pause(0.25)
        with in_thread(lambda: site.window().run([need("child")], ddl(ADD))) as errors:
            site.heard.await_one(WaitStarted)
            pause(0.6)
            assert site.heard.of(WaitContinues) == []
            first.rollback()
            again = site.heard.await_one(WaitContinues)
            second.rollback()
    assert errors == []
    assert f"pid {pid} " in again.reason


def test_the_exposure_budget_ends_it(site: Site) -> None:
    """A window gives up when the application could have waited behind it for as long as the plan allows, not
    later.
    """
    window = site.window(exposure_s=0.1, blocker_age_s=60.0)
    with blocker(site.dsn), pytest.raises(LockNotAcquired, match="exposure"):
        window.run([need("child")], ddl(ADD))
    assert window.exposure.by_relation["public.child"] == pytest.approx(0.1, abs=0.06)


def test_the_exposure_budget_is_the_tables(site: Site) -> None:
    """A second window on a table whose budget is spent does not ask even once; another table has its own."""
    window = site.window(exposure_s=0.1, blocker_age_s=60.0)
    with blocker(site.dsn):
        for _ in range(2):
            with pytest.raises(LockNotAcquired):
                window.run([need("child")], ddl(ADD))
    window.run([need("parent")], ddl("ALTER TABLE public.parent ADD COLUMN extra int"))
    assert "extra" in site.columns("parent")


def test_no_lock_is_asked_for_without_a_timeout(site: Site) -> None:
    """Never a last try without a timeout: each try in the queue is over within its rung."""
    seen: list[str] = []
    window = site.window(attempts=3, blocker_age_s=60.0)
    with (
        blocker(site.dsn),
        psycopg.connect(site.dsn, autocommit=True) as eye,
        in_thread(lambda: window.run([need("child")], ddl(ADD))),
    ):
        for _ in range(60):
            row = eye.execute(
                "SELECT max(extract(epoch FROM clock_timestamp() - waitstart))::text FROM pg_locks"
                " WHERE NOT granted AND pid = %s",
                [site.work.info.backend_pid],
            ).fetchone()
            if row is not None and row[0] is not None:
                seen.append(row[0])
            pause(0.01)
    assert seen
    assert max(map(float, seen)) < 0.05 * 1.5**2 + SLACK_S


def test_an_undeclared_lock(site: Site) -> None:
    """A statement that locks more than declared is rolled back, with both lists, before anything of it is
    seen.
    """
    with pytest.raises(UndeclaredLock) as caught:
        site.window().run(
            [need("child", LockMode.SHARE_ROW_EXCLUSIVE)],
            ddl(ADD, "ALTER TABLE public.parent ADD COLUMN extra int"),
        )
    assert "AccessExclusiveLock on public.child (declared: ShareRowExclusiveLock)" in caught.value.held
    assert "AccessExclusiveLock on public.parent (declared: nothing)" in caught.value.held
    assert caught.value.declared == ("SHARE ROW EXCLUSIVE on public.child",)
    assert "extra" not in site.columns("child") | site.columns("parent")


def test_a_dropped_relations_lock_is_compared(site: Site) -> None:
    """A relation that the statement drops has no row in the catalog any more, and is
    compared all the same.
    """
    site.watch.execute("CREATE INDEX child_v ON public.child (v)")
    drop = ddl("DROP INDEX public.child_v")
    with pytest.raises(UndeclaredLock, match="declared: nothing"):
        site.window().run([need("child")], drop)
    site.window().run([need("child"), need("child_v")], drop)


def test_what_the_window_makes_need_not_be_declared(site: Site) -> None:
    """New tables, their indexes and sequences are in use by no session yet; their
    parent's lock is declared.
    """
    made = ddl(
        "CREATE TABLE public.fresh (id serial PRIMARY KEY, parent_id int REFERENCES public.parent, note text)"
    )
    site.window().run([need("parent", LockMode.SHARE_ROW_EXCLUSIVE)], made)
    assert "parent_id" in site.columns("fresh")


def test_a_window_without_a_relation(site: Site) -> None:
    """A table without foreign keys needs no lock at all; when its window times out, it says so and does not
    break.
    """
    site.window().run([], ddl("CREATE TABLE public.lonely (id int)"))
    assert site.heard.of(LockHeld)[0].locks == ()
    with pytest.raises(LockNotAcquired, match="a lock of the change itself"):
        site.window(attempts=2, hold_cap_s=0.1).run([], ddl("SELECT pg_sleep(5)"))


def test_partitions_go_with_their_table(site: Site) -> None:
    """ALTER of a partitioned table locks its partitions: they are checked, asked
    for and declared with it.
    """
    site.watch.execute(
        "CREATE TABLE public.log (id int, at int) PARTITION BY RANGE (at);"
        "CREATE TABLE public.log_1 PARTITION OF public.log FOR VALUES FROM (0) TO (9)"
    )
    add = ddl("ALTER TABLE public.log ADD COLUMN extra int")
    with blocker(site.dsn, "SELECT count(*) FROM log_1"):
        pause(0.25)
        with pytest.raises(LockNotAcquired, match="log_1"):
            site.window(lock_wait_s=0.5).run([need("log")], add)
    site.window().run([need("log")], add)
    assert "ACCESS EXCLUSIVE on public.log_1" in site.heard.of(LockHeld)[0].locks


def test_the_cap_is_one_on_the_whole_hold(site: Site) -> None:
    """statement_timeout restarts with each statement of a message: many short ones may not add up past the
    cap.
    """
    window = site.window(hold_cap_s=0.3)
    with Application(site.dsn) as application, pytest.raises(LockNotAcquired, match="hold_cap"):
        window.run([need("child")], ddl(*["SELECT pg_sleep(0.1)"] * 20))
    assert application.longest_s < 0.3 + SLACK_S
    assert len(site.heard.of(LockAttemptFailed)) == 1, "asked for twice, and no more"


def test_only_the_first_lock_waits_by_the_ladder(site: Site) -> None:
    """The second strong lock gets a quarter of deadlock_timeout, then all is rolled back: the first table is
    free again.
    """
    needs = [need("child"), need("parent", LockMode.SHARE_ROW_EXCLUSIVE)]
    with (
        blocker(site.dsn, "UPDATE public.parent SET note = 'x' WHERE id = 1"),
        Application(site.dsn) as application,
        pytest.raises(LockNotAcquired),
    ):
        site.window(attempts=3, blocker_age_s=60.0).run(needs, ddl(ADD))
    assert application.longest_s < 0.25 + SLACK_S
    assert application.errors == []


def test_a_stop_while_waiting_outside(site: Site) -> None:
    """Ctrl-C, or `stop` from another host, while a blocker is waited for ends the wait within a moment."""
    with blocker(site.dsn):
        pause(0.25)
        with in_thread(lambda: site.window().run([need("child")], ddl(ADD))) as errors:
            site.heard.await_one(WaitStarted)
            site.signal.stop("SIGINT")
    (error,) = errors
    assert isinstance(error, Interrupted)


def test_a_stop_asked_for_elsewhere(site: Site) -> None:
    """The same for a request that is in the journal only."""
    window = site.window()
    asked = threading.Event()

    def ensure_going() -> float:
        if asked.is_set():
            raise Interrupted("stopped")
        return 0.0

    window.ensure_going = ensure_going
    with blocker(site.dsn):
        pause(0.25)
        with in_thread(lambda: window.run([need("child")], ddl(ADD))) as errors:
            site.heard.await_one(WaitStarted)
            asked.set()
    assert isinstance(errors[0], Interrupted)


def test_our_own_deadlock_is_retried(site: Site) -> None:
    """40P01 that hits us is a turn of the ladder, not an error."""
    window = site.window()
    first = ddl("DO $$ BEGIN RAISE SQLSTATE '40P01' USING MESSAGE = 'deadlock detected'; END $$")
    with pytest.raises(LockNotAcquired, match="in 3 attempts"):
        site.window(attempts=3).run([need("child")], first)
    assert {g.reason for g in site.heard.of(LockAttemptFailed)} == {"deadlock detected"}
    window.run([need("child")], ddl(ADD))


def test_an_error_of_the_ddl_is_raised_as_it_is(site: Site) -> None:
    """What is no lock trouble is no reason to try again."""
    with pytest.raises(psycopg.errors.DuplicateColumn):
        site.window().run([need("child")], ddl("ALTER TABLE public.child ADD COLUMN v int"))
    assert site.heard.of(LockAttemptFailed) == []
    assert site.work.info.transaction_status.name == "IDLE"


def test_a_cancel_after_the_commit_is_no_failure(site: Site) -> None:
    """The change is committed when a cancellation hits the question for the time after it: it is not made
    again.
    """
    window = site.window()
    xid = window._take_weak_lock()
    site.work.execute("COMMIT")
    assert window._is_committed(xid)
    xid = window._take_weak_lock()
    site.work.rollback()
    assert not window._is_committed(xid)


def test_a_lock_that_somebody_waits_for_already(site: Site) -> None:
    """Another's ALTER that queues is a blocker before it has anything: our request would wait behind it, and
    all others behind our request.
    """
    other = psycopg.connect(site.dsn, autocommit=True, application_name="flyway")
    pid = other.info.backend_pid
    with (
        other,
        blocker(site.dsn, "SELECT 1 FROM public.child"),
        in_thread(lambda: other.execute("ALTER TABLE public.child ADD COLUMN theirs int")),
    ):
        await_true(lambda: is_waiting(site.watch, pid))
        pause(0.3)
        with pytest.raises(LockNotAcquired) as caught:
            site.window(lock_wait_s=0.5).run([need("child")], ddl(ADD))
        other.cancel_safe()
    assert f"pid {pid} (postgres, flyway): another migration waits for ACCESS EXCLUSIVE" in str(caught.value)
    assert "waiting for pid" in str(caught.value), "the chain: who it waits for itself"


def test_a_window_that_sessions_waited_behind_is_followed_by_a_rest(site: Site) -> None:
    """They get through before the next window asks for the same table; another table is asked for at once."""
    window = site.window()
    with Application(site.dsn):
        window.run(
            [need("child")], ddl("ALTER TABLE public.child ADD COLUMN one int", "SELECT pg_sleep(0.3)")
        )
        released = window.clock.monotonic()
    assert 0 < window.exposure.rest_s(["public.child"], released) <= REST_S
    assert window.exposure.rest_s(["public.parent"], released) == 0
    window.run([need("child")], ddl("ALTER TABLE public.child ADD COLUMN two int"))
    assert window.clock.monotonic() - released > REST_S / 2


def test_windows_follow_each_other_where_no_session_waits(site: Site) -> None:
    """With a lock that was free and no session in its queue, no rest is needed."""
    window = site.window()
    for number in range(3):
        window.run([need("child")], ddl(f"ALTER TABLE public.child ADD COLUMN extra_{number} int"))
        free = site.heard.of(LockHeld)[-1].waited_s < AT_ONCE_S
        assert (window.exposure.rest_s(["public.child"], window.clock.monotonic()) == 0) is free


def test_names_are_quoted(site: Site) -> None:
    """A table with a capital, a space and a quote in its name is as good as any."""
    site.watch.execute('CREATE TABLE public."Od d""ly" (id int)')
    name = sql.Identifier("public", 'Od d"ly')
    site.window().run([need('Od d"ly')], [sql.SQL("ALTER TABLE {} ADD COLUMN extra int").format(name)])
    assert site.heard.of(LockHeld)
    assert not site.heard.of(BlockersSeen)
