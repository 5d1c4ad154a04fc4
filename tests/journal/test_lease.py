"""One runner per database: who may take the lease, from whom, and what becomes of the one that lost it."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from online_migrate.clock import Signal, SystemClock
from online_migrate.errors import Interrupted, LeaseLost
from online_migrate.journal import lease as module
from online_migrate.journal.advisory import ADVISORY_KEY
from online_migrate.journal.lease import Lease, hold_shared, read_holder, read_sessions
from online_migrate.journal.states import RunState
from online_migrate.journal.store import Journal
from online_migrate.postgres.connection import Connection, Connector

STALE = "UPDATE online_migrate.heartbeat SET beat_at = clock_timestamp() - interval '2 min'"

END_ITS_SESSION = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE application_name LIKE '%% lease' AND datname = current_database()"""


class Leases:
    """Makes leases that are released with the test."""

    def __init__(self, connector: Connector, stack: ExitStack) -> None:
        self._connector = connector
        self._stack = stack

    def new(self, signal: Signal | None = None, say: Callable[[str], None] = lambda _: None) -> Lease:
        lease = Lease(self._connector, SystemClock(), signal or Signal(), "shop", say=say)
        self._stack.callback(lease.release)
        return lease


@pytest.fixture
def leases(connector: Connector, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leases]:
    """With a short grace period and a short heartbeat interval."""
    monkeypatch.setattr(module, "GRACE_S", 0.5)
    monkeypatch.setattr(module, "HEARTBEAT_EVERY_S", 0.1)
    with ExitStack() as stack:
        yield Leases(connector, stack)


def test_a_live_runner_keeps_its_lease(leases: Leases, connection: Connection) -> None:
    """The second is shown who, which plan, since when, and how fresh the heartbeat is; the first notices
    nothing.
    """
    first = leases.new()
    first.acquire()
    second = leases.new()
    with pytest.raises(
        LeaseLost, match=r"process \d+, plan shop, since 20.*, last heartbeat 0 s ago"
    ) as caught:
        second.acquire()
    assert "online-migrate stop PLAN" in caught.value.remedy
    connection.execute(first.fence.sql)
    assert first.lost == ""


def test_a_lease_that_was_let_go_is_taken_at_once_with_a_higher_epoch(leases: Leases) -> None:
    """`run` after `run` waits for nothing."""
    first = leases.new()
    epoch = first.acquire().epoch
    first.release()
    assert leases.new().acquire().epoch == epoch + 1


def test_a_stale_runner_is_fenced_off_and_learns_it(leases: Leases, connection: Connection) -> None:
    """Its sessions are ended, its writes are refused, and its own heartbeat tells it: it aborts."""
    signal = Signal()
    first = leases.new(signal)
    old = first.acquire()
    beats = first._thread
    assert beats is not None
    first._over.stop("asleep")  # a runner that was stopped: it holds its sessions and sends no heartbeat
    beats.join()
    connection.execute(STALE)
    second = leases.new()
    new = second.acquire()
    assert new.epoch > old.epoch
    with pytest.raises(LeaseLost, match="another runner took over"):
        Journal(connection, old).set_run(1, RunState.RUNNING)
    Journal(connection, new).set_run(1, RunState.RUNNING)
    first._over = Signal()
    first._send_heartbeats()
    assert first.lost == "another runner took the lease over"
    assert signal.is_aborting


def test_a_number_that_was_given_out_twice_does_not_let_the_old_holder_write(
    leases: Leases, connection: Connection
) -> None:
    """After a failover to a standby that missed the last commits, the epoch may be the same; the holder is
    not.
    """
    lease = leases.new()
    old = lease.acquire()
    connection.execute("UPDATE online_migrate.epoch SET holder = gen_random_uuid()")
    with pytest.raises(LeaseLost):
        Journal(connection, old).set_run(1, RunState.RUNNING)


def test_a_start_does_not_end_another_that_is_just_taking_the_lease(
    leases: Leases, connector: Connector, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts after a long rest: the heartbeat is yesterday's for both, and neither ends the other's
    session.
    """
    monkeypatch.setattr(module, "TAKE_OVER_S", 0.5)
    first = leases.new()
    first.acquire()
    first.release()
    connection.execute(STALE)
    with connector.open("start") as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", ADVISORY_KEY)
        with pytest.raises(LeaseLost):
            leases.new().acquire()
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_the_heartbeat_s_session_is_told_once_it_was_lost(leases: Leases, connection: Connection) -> None:
    """Ended by an operator, or by the network: which it was, and what was said, when it is back."""
    said: list[str] = []
    lease = leases.new(say=said.append)
    lease.acquire()
    connection.execute(END_ITS_SESSION)
    until = monotonic() + 10
    while not said and monotonic() < until:
        connection.execute("SELECT pg_sleep(0.05)")
    (text,) = said
    assert text.startswith("session 'lease' was lost (terminating connection due to administrator command")
    assert text.endswith("; connected again")
    assert lease.lost == ""


def test_a_terminal_that_is_stopped_does_not_keep_the_beat(leases: Leases, connection: Connection) -> None:
    """A thread that prints there waits; the heartbeat continues, so that no runner takes the lease over."""
    reported, goes_on = threading.Event(), threading.Event()

    def say(_: str) -> None:
        reported.set()
        goes_on.wait()

    leases.new(say=say).acquire()
    connection.execute(END_ITS_SESSION)
    try:
        assert reported.wait(10)
        beats: set[object] = set()
        until = monotonic() + 3
        while len(beats) < 2 and monotonic() < until:
            beats.add(connection.execute("SELECT beat_at FROM online_migrate.heartbeat").fetchone())
            connection.execute("SELECT pg_sleep(0.05)")
        assert len(beats) == 2
    finally:
        goes_on.set()


def cut_off(lease: Lease) -> None:
    """As a failover does: the runner lives, its sessions do not, and its next heartbeat is due."""
    lease._over.stop("cut off")
    assert lease._thread is not None
    lease._thread.join()
    assert lease._connection is not None
    lease._connection.close()
    lease._over = Signal()


def test_a_runner_that_is_reconnecting_keeps_its_lease(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions were cut off a moment ago and the advisory lock is free: a start
    waits, and it comes back.
    """
    monkeypatch.setattr(module, "RETURN_S", 10.0)
    first = leases.new()
    first.acquire()
    cut_off(first)
    back = threading.Timer(1.0, first._reopen)
    back.start()
    with pytest.raises(LeaseLost, match="another runner holds the lease"):
        leases.new().acquire()
    back.join()
    first._send_heartbeat()
    assert first.lost == ""


def test_a_runner_that_does_not_come_back_is_waited_for_some_seconds_only(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that may live on another machine: after RETURN_S without a sign of it the lease is taken."""
    monkeypatch.setattr(module, "RETURN_S", 1.0)
    first = leases.new()
    epoch = first.acquire().epoch
    cut_off(first)
    assert leases.new().acquire().epoch == epoch + 1


def test_a_killed_process_of_this_machine_is_not_waited_for(leases: Leases, connection: Connection) -> None:
    """`run` right after a SIGKILL goes on at once: its process is seen to have ended."""
    first = leases.new()
    epoch = first.acquire().epoch
    cut_off(first)
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    who = f"somebody@{platform.node()}, process {int(gone.stdout)}"
    connection.execute("UPDATE online_migrate.heartbeat SET who = %s", [who])
    began = monotonic()
    assert leases.new().acquire().epoch == epoch + 1
    assert monotonic() - began < 3


def test_a_stop_while_waiting_for_the_lease_is_a_stop(leases: Leases) -> None:
    """Ctrl-C there is exit 130, not 'another runner'."""
    first = leases.new()
    first.acquire()
    signal = Signal()
    signal.stop("SIGINT")
    with pytest.raises(Interrupted, match="SIGINT"):
        leases.new(signal).acquire()


def test_the_heartbeat_s_session_is_opened_again(leases: Leases, connection: Connection) -> None:
    """An ended session costs a heartbeat, and one session is open at a time."""
    lease = leases.new()
    lease.acquire()
    ((pid, name),) = read_sessions(connection)
    assert name == "online-migrate lease"
    connection.execute("SELECT pg_terminate_backend(%s, 1000)", [pid])
    clock = SystemClock()
    for _ in range(100):
        sessions = read_sessions(connection)
        if sessions:
            break
        clock.wait(0.05, Signal())
    ((other, _),) = read_sessions(connection)
    assert other != pid
    holder = read_holder(connection)
    assert holder is not None
    assert holder.heartbeat_age_s < 5


def test_no_session_works_while_a_take_over_is_under_way(
    connector: Connector, connection: Connection
) -> None:
    """The exclusive lock is held from the end of the old sessions until the epoch is raised."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", ADVISORY_KEY)
    with connector.open("work") as work, pytest.raises(LeaseLost, match="taking over the lease"):
        hold_shared(work)
