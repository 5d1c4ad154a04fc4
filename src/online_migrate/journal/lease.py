"""One runner per database: the epoch, the heartbeat, the take-over.

The fence has two halves: the epoch's row, asserted in every transaction that writes, and a session-level
shared advisory lock on every session that works, concurrent builds included, by which a take-over finds what
is still alive.
"""

from __future__ import annotations

import getpass
import os
import platform
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from online_migrate.clock import Clock, Signal
from online_migrate.errors import Interrupted, LeaseLost, OnlineMigrateError
from online_migrate.journal.advisory import ADVISORY_KEY, HELD, SESSIONS
from online_migrate.journal.commit_waits import (
    KIND,
    CommitWait,
    read_commit_waits,
    report_commit_waits,
    reporting_commits,
)
from online_migrate.journal.fence import Fence
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.waiting import Waiting

HOLDER = (
    "SELECT who, plan, to_char(since, 'YYYY-MM-DD HH24:MI:SS TZ'),"
    " extract(epoch FROM clock_timestamp() - beat_at)::float8, holder::text FROM online_migrate.heartbeat"
)
"""for :func:`to_holder`"""
STALE_AFTER_S = 60
"""a runner without a heartbeat for this long, by the server's clock, is dead"""
TAKE_OVER_S = 60.0
"""how long the sessions of a dead runner may take to end"""
HEARTBEAT_EVERY_S = 5.0
RELEASE_S = 12.0
"""how long a release waits for a heartbeat that is being sent: an attempt to connect takes up to 10 s"""
RETURN_S = 15.0
"""how long a start waits for a runner without sessions, whose heartbeat is not stale, to come back: behind a
failover its next heartbeat comes after HEARTBEAT_EVERY_S and an attempt to connect"""
RELEASED = "00000000-0000-0000-0000-000000000000"
"""the heartbeat's holder after its runner has released the lease: the next start does not wait"""
GRACE_S = 8.0
"""how long a start waits for the sessions of a runner that has just been killed:
client_connection_check_interval is 2 s"""
REPORT_AFTER_S = 2.0
"""a start that waits longer for another runner's sessions reports for which"""
HEARTBEAT_SETTINGS = {"synchronous_commit": "local"}
"""a heartbeat that waited for a synchronous standby would be seen by no other session: its runner would count
as dead"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The holder of the lease by the journal."""

    runner: str
    plan: str
    since: str
    heartbeat_age_s: float
    is_released: bool = False

    @property
    def may_return(self) -> bool:
        """Could it reconnect?  Not if it released the lease, or if its process on this machine has ended."""
        if self.is_released or self.heartbeat_age_s > STALE_AFTER_S:
            return False
        place, _, process = self.runner.rpartition(", process ")
        if place.rpartition("@")[2] != platform.node() or not process.isdecimal():
            return True
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is another user's
            return True
        return True


def whoami() -> str:
    """user@host, process: for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()}, process {os.getpid()}"


def person() -> str:
    """user@host: who typed the command, behind sudo too.  An account can name another: it is no proof."""
    return f"{os.environ.get('SUDO_USER') or whoami().partition('@')[0]}@{platform.node()}"


def read_holder(connection: Connection) -> Holder | None:
    """The runner that sent the last heartbeat."""
    row = connection.execute(HOLDER).fetchone()
    return None if row is None else to_holder(row)


def to_holder(row: tuple[Any, ...]) -> Holder:
    """What :data:`HOLDER` selects."""
    runner, plan, since, heartbeat_age_s, holder = row
    return Holder(
        runner=runner, plan=plan, since=since, heartbeat_age_s=heartbeat_age_s, is_released=holder == RELEASED
    )


def read_sessions(connection: Connection) -> tuple[tuple[int, str], ...]:
    """:data:`SESSIONS`: (pid, application_name)."""
    return tuple((int(pid), str(name)) for pid, name in connection.execute(SESSIONS))


class Lease:
    """Held from :meth:`acquire` to :meth:`release`; a thread of its own sends the heartbeat."""

    def __init__(
        self,
        connector: Connector,
        clock: Clock,
        signal: Signal,
        plan: str,
        say: Callable[[str], None] = lambda _: None,
        emit: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        self._emit = emit
        self._commits = Waiting(emit, clock, KIND)
        self._reporter: threading.Thread | None = None
        self._connector = connector
        self._clock = clock
        self._signal = signal
        self._plan = plan
        self._say = say
        self._holder = str(uuid.uuid4())
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._over = Signal()
        self._lost_reason = ""
        """what the server, or the network, said when our session was lost; empty while it is there"""
        self.fence = Fence(epoch=-1, holder=self._holder)
        self.lost: str = ""
        """why the lease is lost, or empty"""

    def acquire(self) -> Fence:
        """Take the lease; raises :class:`LeaseLost` where a live runner has it, with who and since when.

        A runner whose heartbeat is stale is fenced off: its sessions are ended first, then the epoch is
        raised.
        """
        connection = self._connector.open("lease")
        self._connection = connection
        self._await_exclusive(connection)
        with reporting_commits(self._connector, self._emit, self._clock, connection):
            row = connection.execute(
                "UPDATE online_migrate.epoch SET epoch = epoch + 1, holder = %s RETURNING epoch",
                [self._holder],
            ).fetchone()
        for name, value in HEARTBEAT_SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        assert row is not None  # schema.sql puts its one row there
        self.fence = Fence(epoch=int(row[0]), holder=self._holder)
        connection.execute(
            """INSERT INTO online_migrate.heartbeat (holder, who, plan, since, beat_at)
               VALUES (%(h)s, %(w)s, %(p)s, clock_timestamp(), clock_timestamp())
               ON CONFLICT (only_row) DO UPDATE SET holder = excluded.holder, who = excluded.who, plan =
                 excluded.plan,
                   since = excluded.since, beat_at = excluded.beat_at""",
            {"h": self._holder, "w": whoami(), "p": self._plan},
        )
        hold_shared(connection)
        connection.execute("SELECT pg_advisory_unlock(%s, %s)", ADVISORY_KEY)
        self._thread = threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True)
        self._thread.start()
        return self.fence

    def release(self) -> None:
        """Release the lease; safe to call twice.  Waits for the thread, so that it
        opens no further session.
        """
        self._over.stop("released")
        if self._thread is not None:
            self._thread.join(timeout=RELEASE_S)
        if self._connection is not None:
            if self._thread is None or not self._thread.is_alive():  # else it is sending a heartbeat
                self._mark_released(self._connection)
            self._connection.close()

    def _mark_released(self, connection: Connection) -> None:
        """Tell the next start that it need not wait; if this cannot be written, it waits for some seconds."""
        with suppress(psycopg.Error):
            connection.execute(
                "UPDATE online_migrate.heartbeat SET holder = %s WHERE holder = %s", [RELEASED, self._holder]
            )

    def _await_return(self, connection: Connection) -> None:
        """A runner that reconnects after a failover holds no lock for some seconds, and is alive: until it
        has its lock again, or could have it.  The lock is not tried meanwhile: it would be refused its own.
        """
        began = self._clock.monotonic()
        while not read_sessions(connection) and self._clock.monotonic() - began < RETURN_S:
            holder = read_holder(connection)
            if holder is None or not holder.may_return:
                return
            if self._clock.wait(0.2, self._signal):
                raise Interrupted(f"stopped before it began: {self._signal.reason}")

    def _await_exclusive(self, connection: Connection) -> None:
        """While the sessions of another runner hold the lock, wait for some seconds: a killed one has lost it
        by then.
        """
        self._await_return(connection)
        began = self._clock.monotonic()
        with Waiting(self._emit, self._clock, "lease") as waiting:
            while not self._try_exclusive(connection):
                holder = read_holder(connection)
                is_stale = holder is not None and holder.heartbeat_age_s > STALE_AFTER_S
                waited_s = self._clock.monotonic() - began
                if waited_s > (TAKE_OVER_S if is_stale else GRACE_S):
                    raise LeaseLost(
                        _held_by(holder, read_commit_waits(connection)),
                        remedy="one runner per database: wait for it, or stop it with"
                        " `online-migrate stop PLAN`",
                    )
                if waited_s > REPORT_AFTER_S and waiting.may_report:
                    waiting.report(_awaited(holder, read_sessions(connection), read_commit_waits(connection)))
                if is_stale:
                    self._end_sessions(connection)
                if self._clock.wait(0.2, self._signal):
                    raise Interrupted(f"stopped before it began: {self._signal.reason}")

    def _try_exclusive(self, connection: Connection) -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", ADVISORY_KEY).fetchone()
        return bool(row and row[0])

    def _end_sessions(self, connection: Connection) -> None:
        """End the sessions of a dead runner.  One that has held the lock exclusively for a moment is not
        meant: another start is just taking the lease over, and the heartbeat is not its own yet.
        """
        connection.execute(
            "SELECT pg_terminate_backend(l.pid, 5000)"  # noqa: S608  # a constant of ours
            f" FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE {HELD} AND (l.mode = 'ShareLock'"
            " OR a.backend_start < clock_timestamp() - make_interval(secs => %s))",
            [STALE_AFTER_S],
        )

    def _send_heartbeats(self) -> None:
        """Send heartbeats until released; after a failure reconnect: the lease is the epoch's row, not this
        session.
        """
        while not self._clock.wait(HEARTBEAT_EVERY_S, self._over):
            try:
                self._send_heartbeat()
                self._report_commits()
            except (psycopg.Error, OSError) as error:
                self._lost_reason = self._lost_reason or " ".join(str(error).split())
                self._reopen()
            if self.lost:
                self._signal.abort(self.lost)
                return

    def _send_heartbeat(self) -> None:
        assert self._connection is not None  # the thread starts after acquire
        row = self._connection.execute(
            "UPDATE online_migrate.heartbeat SET beat_at = clock_timestamp() WHERE holder = %s RETURNING 1",
            [self._holder],
        ).fetchone()
        if row is None:
            self.lost = "another runner took the lease over"

    def _report_commits(self) -> None:
        """Report sessions of ours whose commit waits for a synchronous standby; from a thread of its own, as
        :meth:`_note`.
        """
        assert self._connection is not None
        if self._reporter is not None and self._reporter.is_alive():
            return
        waits = read_commit_waits(self._connection)
        if waits or self._commits.has_begun:
            report = threading.Thread(
                target=report_commit_waits, args=[self._commits, waits], name="commit waits", daemon=True
            )
            self._reporter = report
            report.start()

    def _reopen(self) -> None:
        """Close the old session first: at most one of ours is for the heartbeat."""
        if self._connection is not None:
            self._connection.close()
        try:
            connection = self._connector.open("lease", settings=HEARTBEAT_SETTINGS)
        except (
            psycopg.Error,
            OnlineMigrateError,
            OSError,
        ):  # the server is unreachable: the next heartbeat tries again
            return
        self._connection = connection
        try:
            hold_shared(connection)
        except (
            psycopg.Error,
            OnlineMigrateError,
        ):  # closed: the next heartbeat tries again, the fence decides meanwhile
            connection.close()
        else:
            self._note(f"session 'lease' was lost ({self._lost_reason}); connected again")
            self._lost_reason = ""

    def _note(self, text: str) -> None:
        """In a thread of its own: a stopped terminal blocks a write to it, which must not delay the
        heartbeat.
        """
        threading.Thread(target=self._say, args=[text], name="heartbeat's news", daemon=True).start()


def hold_shared(connection: Connection) -> None:
    """Mark a session as one that works for the runner.  Polled by try: a blocking
    call would hold a snapshot.
    """
    row = connection.execute("SELECT pg_try_advisory_lock_shared(%s, %s)", ADVISORY_KEY).fetchone()
    if not (row and row[0]):
        raise LeaseLost(
            "another runner is taking over the lease", remedy="see who it is: online-migrate status PLAN"
        )


def _held_by(holder: Holder | None, commits: Sequence[CommitWait]) -> str:
    if holder is None:
        return "another runner holds the lease of this database"
    waits = f"; session {commits[0].session} waits for a synchronous standby (SyncRep)" if commits else ""
    return (
        f"another runner holds the lease of this database: {holder.runner}, plan {holder.plan}, since"
        f" {holder.since},"
        f" last heartbeat {holder.heartbeat_age_s:.0f} s ago{waits}"
    )


def _awaited(
    holder: Holder | None, sessions: Sequence[tuple[int, str]], commits: Sequence[CommitWait]
) -> str:
    """What a take-over waits for."""
    in_commit = {c.pid for c in commits}
    named = ", ".join(
        f"pid {pid} ({name}{', its commit waits for a synchronous standby' if pid in in_commit else ''})"
        for pid, name in sessions
    )
    runner = "another runner" if holder is None else holder.runner
    age = "" if holder is None else f"; its last heartbeat is {holder.heartbeat_age_s:.0f} s old"
    return f"the sessions of {runner} have not ended: {named or 'none is visible'}{age}"
