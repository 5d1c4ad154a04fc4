"""The runner's connections: opened together, each marked by the advisory lock, opened again after a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
import tenacity

from online_migrate.clock import Clock, Signal
from online_migrate.errors import ConnectionFailed, Interrupted
from online_migrate.events import Reconnected, Retried
from online_migrate.journal.lease import hold_shared
from online_migrate.postgres.connection import Connection, Connector, Sql
from online_migrate.postgres.server_errors import translate_error, translating_fence
from online_migrate.postgres.sqlstate import is_connection_lost
from online_migrate.waiting import Waiting

_Result = TypeVar("_Result")

RECONNECT_FOR_S = 900.0
"""15 minutes: a failover with its checks, or a restart behind a long recovery"""
LONGEST_PAUSE_S = 10.0
END_OLD_MS = 5000
"""how long an old session of ours may take to end, at each try"""
LOSSES = 20
"""times in a row that one step may lose its connection: a statement that ends its own session must not
continue for ever"""
IN_A_ROW_S = 60.0
"""a loss later than this after the one before is counted as a new one"""
PAUSE_AFTER_LOSS_S = 0.2
"""doubled from loss to loss: the first is a failover, the tenth is a statement's own doing"""


@dataclass(slots=True, kw_only=True)
class Sessions:
    """``work`` runs DDL and batches, ``watch`` reads about other sessions meanwhile, ``journal`` writes the
    journal.
    """

    connector: Connector
    signal: Signal
    emit: Callable[..., None]
    clock: Clock
    work: Connection = field(init=False)
    watch: Connection = field(init=False)
    journal: Connection = field(init=False)
    _main: list[Connection] = field(init=False, default_factory=list)
    """those of the three that have been opened"""
    _more: list[Connection] = field(init=False, default_factory=list)
    _old: list[tuple[int, object]] = field(default_factory=list)

    def open(self) -> None:
        """Open all three.  Old sessions of ours are ended first: a commit of theirs may still be running."""
        self.journal = self._open_main("journal")
        self._ensure_primary()
        self._end_old()
        self.work = self._open_main("work")
        self.watch = self._open_main("watch")
        self._old = [self._identity(c) for c in self._main]

    @contextmanager
    def workers(
        self, count: int, report_fewer: Callable[[int, ConnectionFailed], None]
    ) -> Iterator[list[Connection]]:
        """So many sessions for work, ``work`` and others that are closed afterwards; fewer where the server
        has no more.
        """
        try:
            try:
                for number in range(2, count + 1):
                    self._more.append(self._open(f"work {number}"))
                    self._old.append(self._identity(self._more[-1]))
            except ConnectionFailed as error:  # after a failover all clients connect at once
                report_fewer(1 + len(self._more), error)
            yield [self.work, *self._more]
        finally:
            self._close_more()

    def _close_more(self) -> None:
        while self._more:
            self._more.pop().close()

    @property
    def pids(self) -> list[int]:
        """The processes of all that are open."""
        return [
            c.info.backend_pid for c in (self.journal, self.watch, self.work, *self._more) if not c.closed
        ]

    def close(self) -> None:
        self._close_more()
        while self._main:
            self._main.pop().close()

    def with_reconnect(self, work: Callable[[], _Result], fence: Sql, where: Callable[[], str]) -> _Result:
        """Return what ``work`` returns; after a lost connection open the sessions again and do it again.

        ``work`` must converge: it starts with what the journal says.  ``where`` names what it was at; other
        errors of the server are raised as ours, with that name.  Raises :class:`ConnectionFailed` after more
        than ``LOSSES`` losses in a row at the same place.
        """
        losses, regained_at, lost_at = 0, self.clock.monotonic(), ""
        while True:
            try:
                with translating_errors(where):
                    return work()
            except psycopg.Error as error:
                is_in_a_row = where() == lost_at and self.clock.monotonic() - regained_at < IN_A_ROW_S
                losses, lost_at = losses + 1 if is_in_a_row else 1, where()
                if losses > LOSSES:
                    raise ConnectionFailed(
                        f"{lost_at}: the connection was lost {losses} times in a row, the last time: {error}",
                        remedy="see the server's log: a statement of this step may end its own session",
                    ) from error
                if losses > 1:
                    self.clock.wait(min(PAUSE_AFTER_LOSS_S * 2.0**losses, LONGEST_PAUSE_S), self.signal)
                self.reopen(fence, self._describe_lost(error))
                regained_at = self.clock.monotonic()

    def reopen(self, fence: Sql, lost: str = "") -> None:
        """After a lost connection: try for 15 minutes, then raise :class:`ConnectionFailed`, resumable.

        ``lost`` is reported when the connection is back.  Raises :class:`LeaseLost` if another runner took
        over meanwhile.
        """
        began = self.clock.monotonic()
        waiting = Waiting(self.emit, self.clock, "connection")
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((ConnectionFailed, psycopg.Error)),
            stop=tenacity.stop_after_delay(RECONNECT_FOR_S) | tenacity.stop_when_event_set(self.signal.event),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
            sleep=tenacity.sleep_using_event(self.signal.event),
            before_sleep=lambda state: self._report_retry(state, waiting),
            reraise=True,
        )
        try:
            with waiting:
                retrying(self._open_again, fence)
        except (ConnectionFailed, psycopg.Error) as error:
            if self.signal.is_stopping:
                raise Interrupted(f"stopped while the connection was lost: {self.signal.reason}") from error
            raise ConnectionFailed(
                f"connection lost and not regained in {RECONNECT_FOR_S / 60:.0f} minutes: {error}",
                remedy="when the server is back, run the same command again: it continues where it stopped",
            ) from error
        self.emit(Reconnected, seconds=self.clock.monotonic() - began, lost=lost)

    def _describe_lost(self, error: psycopg.Error) -> str:
        """The sessions that were lost, as far as noticed, and what the server said."""
        purposes = ("work", "watch", "journal", *(f"work {n}" for n in range(2, len(self._more) + 2)))
        sessions = zip(purposes, (self.work, self.watch, self.journal, *self._more), strict=True)
        closed = [repr(purpose) for purpose, connection in sessions if connection.closed]
        lost = f"session {', '.join(closed)} was lost" if closed else "the server was not usable"
        said = error.diag.message_primary or " ".join(str(error).split())
        return f"{lost} ({f'{error.sqlstate}: ' if error.sqlstate else ''}{said})"

    def _open_again(self, fence: Sql) -> None:
        self.close()
        self.open()
        with translating_fence():
            self.journal.execute(fence)

    def _report_retry(self, state: tenacity.RetryCallState, waiting: Waiting) -> None:
        error = state.outcome.exception() if state.outcome else None
        text = " ".join(str(error).split())
        waiting.report(f"the connection is lost: {text}")
        self.emit(
            Retried,
            kind="connection",
            attempt=state.attempt_number,
            error=text,
            pause_s=state.upcoming_sleep,
        )

    def _open_main(self, purpose: str) -> Connection:
        self._main.append(self._open(purpose))
        return self._main[-1]

    def _open(self, purpose: str) -> Connection:
        connection = self.connector.open(purpose)
        try:
            hold_shared(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ensure_primary(self) -> None:
        """A standby takes connections, and no writes: in the middle of a failover it may answer first."""
        row = self.journal.execute("SELECT pg_is_in_recovery()").fetchone()
        if row is not None and row[0]:
            raise ConnectionFailed(
                "the server that answers is a standby",
                remedy="give the primary's DSN, or several hosts with target_session_attrs=read-write",
            )

    def _identity(self, connection: Connection) -> tuple[int, object]:
        row = connection.execute(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchone()
        return (connection.info.backend_pid, None if row is None else row[1])

    def _end_old(self) -> None:
        for pid, started in self._old:
            row = self.journal.execute(
                "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE pid = %s AND backend_start"
                " = %s",
                [END_OLD_MS, pid, started],
            ).fetchone()
            if row is not None and not row[0]:
                raise ConnectionFailed(
                    f"our old session, pid {pid}, is still running",
                    remedy=f"wait until it ends, or end it: SELECT pg_terminate_backend({pid}); then"
                    " run the same command again",
                )
        self._old = []


@contextmanager
def translating_errors(where: Callable[[], str]) -> Iterator[None]:
    """Raise the server's errors as ours, with where they came up; a lost connection passes as it is: it ends
    nothing.
    """
    try:
        yield
    except psycopg.Error as error:
        if is_connection_lost(error):
            raise
        raise translate_error(error, where()) from error
