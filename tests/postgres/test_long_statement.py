"""Statements that take long: watched, named for whom they wait, cancelled by a limit or an abort, and
compared.
"""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.clock import SystemClock
from online_migrate.errors import Interrupted, LockNotAcquired, UndeclaredLock
from online_migrate.events import (
    BlockersSeen,
    LongStatement,
    StopAsked,
    WaitContinues,
    WaitEnded,
    WaitStarted,
)
from online_migrate.postgres import long_statement
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.long_statement import report_meanwhile
from online_migrate.postgres.snapshots import read_snapshot_holders
from online_migrate.waiting import (
    REPORT_CHANGED_S,
)
from tests.locks.beside import Application, Site, await_true, blocker, in_thread, need

BUILD = "CREATE INDEX CONCURRENTLY child_v ON public.child (v)"
SIDE = need("child", LockMode.SHARE_UPDATE_EXCLUSIVE)


def is_valid(site: Site, index: str = "child_v") -> bool | None:
    row = site.watch.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('public.' || %s)", [index]
    ).fetchone()
    return None if row is None else bool(row[0])


def test_a_build_waits_for_an_old_snapshot_and_says_whose(site: Site) -> None:
    """A build behind an open snapshot is not ended by a lock_timeout; who holds the snapshot is named; then
    it goes on.
    """
    with blocker(site.dsn, "SELECT count(*) FROM public.parent", application="report") as other:
        other.rollback()
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM public.parent")
        pid = other.info.backend_pid
        with Application(site.dsn) as application:
            with in_thread(lambda: site.long(BUILD, needs=[SIDE])) as errors:
                await_true(lambda: any(e.waits_for for e in site.heard.of(LongStatement)))
                other.rollback()
            assert application.longest_s < 0.5
    assert errors == []
    assert is_valid(site)
    said = next(e for e in site.heard.of(LongStatement) if e.waits_for)
    assert said.phase == "waiting for writers before build" or said.phase.startswith(
        "waiting for old snapshots"
    )
    assert any(f"pid {pid}" in w and "report" in w for w in said.waits_for)
    assert site.heard.of(BlockersSeen)


def test_who_keeps_a_build_waiting_is_a_wait(site: Site) -> None:
    """As with a lock window: reported with what ends it, again when it changes, not at each reading, and over
    as soon as no session blocks.
    """
    with (
        blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 1") as first,
        blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 2") as second,
        in_thread(lambda: site.long(BUILD)) as errors,
    ):
        started = site.heard.await_one(WaitStarted)
        held_by, other = (
            (first, second) if f"pid {first.info.backend_pid} " in started.reason else (second, first)
        )
        assert started.kind == "blocker"
        assert "we wait for at most 30.0 s" in started.reason
        assert f"pg_terminate_backend({held_by.info.backend_pid})" in started.reason
        held_by.rollback()
        goes_on = site.heard.await_one(WaitContinues)
        assert f"pid {other.info.backend_pid} " in goes_on.reason
        other.rollback()
        ended = site.heard.await_one(WaitEnded)
    assert errors == []
    assert ended.seconds >= goes_on.seconds >= REPORT_CHANGED_S


def test_whoever_is_gone_at_the_next_look_is_no_wait(site: Site) -> None:
    """A build waits for each short transaction in turn: no operator has to do anything about them."""
    with (
        blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 1") as other,
        in_thread(lambda: site.long(BUILD)) as errors,
    ):
        await_true(lambda: any(e.waits_for for e in site.heard.of(LongStatement)))
        other.rollback()
    assert errors == []
    assert site.heard.of(WaitStarted) == []


def test_the_limit_cancels_it_and_names_who_was_waited_for(site: Site) -> None:
    """After the limit: exit 4 with the holder named; the caller cleans the invalid index up."""
    with blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 1", application="batch") as other:
        pid = other.info.backend_pid
        with pytest.raises(LockNotAcquired) as caught:
            site.long(BUILD, limit_s=0.7)
    assert any(f"pid {pid}" in b for b in caught.value.blockers)
    assert is_valid(site) is False, "left for the operation to drop"
    assert site.work.execute("SHOW lock_timeout").fetchone() == ("5s",)


def test_an_abort_cancels_it(site: Site) -> None:
    """Twice Ctrl-C: the statement is cancelled in the server, not only forgotten by us."""
    with blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 1"):
        with in_thread(lambda: site.long(BUILD)) as errors:
            site.heard.await_one(LongStatement)
            site.signal.abort("SIGINT")
        assert isinstance(errors[0], Interrupted)
        row = site.watch.execute("SELECT count(*) FROM pg_stat_progress_create_index").fetchone()
        assert row == (0,)


def test_a_stop_lets_it_finish(site: Site) -> None:
    """Once Ctrl-C: a build that is nearly done is not thrown away, and that a stop was asked for is said
    once.
    """
    with (
        blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 1") as other,
        in_thread(lambda: site.long(BUILD)) as errors,
    ):
        site.heard.await_one(LongStatement)
        site.signal.stop("SIGINT")
        assert site.heard.await_one(StopAsked).reason == "SIGINT"
        other.rollback()
    assert errors == []
    assert is_valid(site)
    assert len(site.heard.of(StopAsked)) == 1


def test_an_error_of_the_server_is_raised_as_it_is(site: Site) -> None:
    """A duplicate is the operation's to explain."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        site.long("CREATE UNIQUE INDEX CONCURRENTLY child_u ON public.child (parent_id)")


def test_an_undeclared_lock_cancels_it(site: Site) -> None:
    """What cannot run in our transaction is sampled by a second session: more than declared is cancelled,
    both lists reported.
    """
    with blocker(site.dsn, "SELECT count(*) FROM public.child"), pytest.raises(UndeclaredLock) as caught:
        site.long("ALTER TABLE public.child ALTER w SET DEFAULT 1", needs=[SIDE])
    assert caught.value.held == "ACCESS EXCLUSIVE on public.child"
    assert caught.value.declared == ("SHARE UPDATE EXCLUSIVE on public.child",)


def test_validate_beside_a_writer(site: Site) -> None:
    """VALIDATE takes what is declared, and the application goes on."""
    site.watch.execute(
        "ALTER TABLE public.child ADD CONSTRAINT fk FOREIGN KEY (parent_id) REFERENCES public.parent NOT"
        " VALID"
    )
    with Application(site.dsn) as application:
        site.long("ALTER TABLE public.child VALIDATE CONSTRAINT fk", needs=[SIDE])
    assert application.errors == []


def test_a_watcher_that_is_cut_off_leaves_nothing_running(site: Site) -> None:
    """Without eyes the statement is cancelled, and the lost connection is what is reported."""
    with blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 1"):
        with in_thread(lambda: site.long(BUILD)) as errors:
            site.heard.await_one(LongStatement)
            pid = site.watch.info.backend_pid
            with psycopg.connect(site.dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert isinstance(errors[0], psycopg.OperationalError)
        with psycopg.connect(site.dsn, autocommit=True) as other:
            row = other.execute("SELECT count(*) FROM pg_stat_progress_create_index").fetchone()
    assert row == (0,)


def test_a_proof_that_takes_long_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a read the server has no share: that it goes on, and for how long, is said until it is over, and no
    longer.
    """
    monkeypatch.setattr(long_statement, "REPORT_EVERY_S", 0.05)
    with report_meanwhile("no row without v", clock=SystemClock(), emit=site.heard):
        site.work.execute("SELECT pg_sleep(0.3)")
    reported = site.heard.of(LongStatement)
    assert {(t.statement, t.phase, t.share_done) for t in reported} == {("no row without v", "proving", None)}
    assert [t.seconds for t in reported] == sorted(t.seconds for t in reported)
    site.work.execute("SELECT pg_sleep(0.1)")
    assert site.heard.of(LongStatement) == reported


def test_who_holds_the_oldest_snapshot(site: Site) -> None:
    """Sessions, prepared transactions and slots are distinguished, and which of them a build can have to wait
    for.
    """
    with psycopg.connect(site.dsn, autocommit=True) as other:
        other.execute("BEGIN; UPDATE public.child SET v = 1 WHERE id = 1; PREPARE TRANSACTION 'old'")
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        try:
            holders = read_snapshot_holders(site.watch, mine=(site.work.info.backend_pid,))
        finally:
            other.execute("ROLLBACK")
            other.execute("ROLLBACK PREPARED 'old'")
    kinds = {h.kind: h for h in holders}
    assert kinds["prepared transaction"].holds_builds
    assert "'old'" in kinds["prepared transaction"].name
    assert kinds["session"].holds_builds
    assert kinds["session"].name.startswith("pid ")


def test_a_prepared_transaction_in_a_builds_way_is_named(site: Site) -> None:
    """It has no pid that pg_blocking_pids could give; it is named all the same."""
    with psycopg.connect(site.dsn, autocommit=True) as other:
        other.execute("BEGIN; UPDATE public.child SET v = 1 WHERE id = 1; PREPARE TRANSACTION 'old'")
        try:
            with pytest.raises(LockNotAcquired) as caught:
                site.long(BUILD, limit_s=0.7)
        finally:
            other.execute("ROLLBACK PREPARED 'old'")
    assert any("prepared transaction 'old'" in b for b in caught.value.blockers)
