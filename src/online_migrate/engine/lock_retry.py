"""Retries a step whose read of a table was blocked by another session's strong lock, after waiting outside
the queue.

Lock windows and batches wait in their own ways; what remains are reads of the catalog, of sizes and of rows,
which fail by lock_timeout while another session holds ACCESS EXCLUSIVE: VACUUM FULL, an ORM that alters the
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from online_migrate.clock import Signal
from online_migrate.errors import LockNotAcquired
from online_migrate.journal.sessions import IN_A_ROW_S
from online_migrate.postgres.blockers import Blocker, describe_blockers, read_blockers
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode
from online_migrate.run import RunContext
from online_migrate.waiting import Waiting

READ_EVERY_S = 0.5
"""how often the blockers are read again"""
_LOCKED = {"55P03", "40P01"}
"""not 57014: an operator who cancels a statement wants the run to end"""


@dataclass(slots=True, kw_only=True)
class LockRetry:
    """Waits for at most ``lock_wait_s`` in a row, then :class:`LockNotAcquired`, which names the blockers."""

    run: RunContext

    def take(
        self,
        work: Callable[[], None],
        table: str | None,
        emit: Callable[..., None],
        ensure_going: Callable[[], float],
        signal: Signal,
    ) -> None:
        """Do ``work`` again as often as a lock could not be acquired.  It must converge."""
        began = regained_at = float("-inf")
        while True:
            try:
                return work()
            except (psycopg.Error, LockNotAcquired) as error:
                if not _is_locked_out(error) or signal.is_aborting:
                    raise
                if self.run.clock.monotonic() - regained_at > IN_A_ROW_S:
                    began = self.run.clock.monotonic()
                self._wait(error, table, began + self.run.locks.lock_wait, emit, ensure_going, signal)
                regained_at = self.run.clock.monotonic()

    def _wait(
        self,
        error: psycopg.Error | LockNotAcquired,
        table: str | None,
        deadline: float,
        emit: Callable[..., None],
        ensure_going: Callable[[], float],
        signal: Signal,
    ) -> None:
        """Wait until no session locks the step's table; once, if none is found."""
        where = "a table" if table is None else f"{self.run.plan.schema}.{table}"
        with Waiting(emit, self.run.clock, "table_lock") as waiting:
            blockers = self._read(table)
            while True:
                blocked_by = (
                    describe_blockers(blockers, self.run.locks.lock_wait)
                    if blockers
                    else "by a session that had ended before we could read its name"
                )
                waiting.report(
                    f"{where} is locked: {blocked_by}", cause=blockers[0].pid if blockers else None
                )
                if self.run.clock.monotonic() > deadline:
                    if isinstance(error, LockNotAcquired):
                        raise error
                    raise LockNotAcquired(
                        f"{where} is still locked after {self.run.locks.lock_wait:.0f} s (lock_wait):"
                        f" {_text(error)}",
                        blockers=tuple(map(str, blockers)),
                        remedy="wait until the sessions end, or end them, then run the same command again",
                    ) from error
                self.run.clock.wait(READ_EVERY_S, signal)
                deadline += ensure_going()
                blockers = self._read(table)
                if not any(b.relation == table for b in blockers):
                    return

    def _read(self, table: str | None) -> tuple[Blocker, ...]:
        """The sessions that block a read of the table; if there are none, of other tables of the schema."""
        return _read_blocking(self.run.sessions.watch, self.run.plan.schema, self.run.sessions.pids, table)


@contextmanager
def naming_blockers(connection: Connection, schema: str) -> Iterator[None]:
    """Name the session that blocks a read of the catalog: for reads that are not retried."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        blockers = _read_blocking(connection, schema, [connection.info.backend_pid])
        tables = ", ".join(dict.fromkeys(b.relation for b in blockers if b.relation)) or "a table"
        raise LockNotAcquired(
            f"{tables} could not be read within our lock_timeout (5 s): another session locks it",
            blockers=tuple(map(str, blockers)),
            remedy="nothing was run; wait until the sessions end, or end them, then run the same command"
            " again",
        ) from error


def _read_blocking(
    connection: Connection, schema: str, mine: list[int], table: str | None = None
) -> tuple[Blocker, ...]:
    """The sessions that block a read of the table; if there are none, of other tables of the schema."""
    rows = connection.execute(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'm')",
        [schema],
    ).fetchall()
    found = read_blockers(connection, [(oid, LockMode.ACCESS_SHARE) for (oid,) in rows], mine=mine)
    return tuple(b for b in found if b.relation == table) or found


def _is_locked_out(error: BaseException | None) -> bool:
    """Did the server refuse a lock, be it in an operation's words?"""
    if isinstance(error, LockNotAcquired):
        error = error.__cause__
    return isinstance(error, psycopg.Error) and error.sqlstate in _LOCKED


def _text(error: psycopg.Error | LockNotAcquired) -> str:
    cause = error.__cause__ if isinstance(error, LockNotAcquired) else error
    return (isinstance(cause, psycopg.Error) and cause.diag.message_primary) or str(error)
