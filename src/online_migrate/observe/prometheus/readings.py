"""What the server reports while we work: WAL, heap-only updates, sizes, standbys, multixacts; read every few
seconds.

All listeners share one session, since a runner has few.  Statistics are read without a lock.  Sizes take
ACCESS SHARE for a moment, so one reading asks for the tables at work and a few others only; a table that is
locked is left for a later reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg

from online_migrate.backfill.throttlers import Blind
from online_migrate.backfill.throttlers.multixacts import MEMBERS_PER_FILE, MOST_MEMBERS
from online_migrate.backfill.throttlers.standby_lag import Standby, StandbyLag
from online_migrate.clock import Clock, SystemClock
from online_migrate.journal.changes import read_epoch
from online_migrate.journal.lease import read_sessions
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.postgres.connection import Connection, role_path_of

EVERY_S: Final = 10.0
"""between readings; Prometheus need not scrape more often"""
SIZES_AT_A_TIME: Final = 20
"""tables beside those at work; 300 tables take 15 readings"""

_TABLES: Final = """
    SELECT relname, n_tup_upd, n_tup_hot_upd, n_dead_tup FROM pg_stat_user_tables
     WHERE relname = ANY (%s) AND schemaname = %s"""
_SIZES: Final = """
    SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
     WHERE relname = ANY (%s) AND relkind = 'r'
       AND relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = %s)"""
_SERVER: Final = """
    SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,
           (SELECT mxid_age(datminmxid)
                   / greatest(current_setting('vacuum_multixact_failsafe_age')::float8,
                              1.05 * current_setting('autovacuum_multixact_freeze_max_age')::float8)
              FROM pg_database WHERE datname = current_database()),
           has_function_privilege('pg_ls_dir(text)', 'EXECUTE')"""
_MEMBERS: Final = "SELECT count(*) FROM pg_ls_dir('pg_multixact/members')"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReading:
    """One table; updates are those of all sessions since its statistics began.  Sizes are None until they
    are known.
    """

    table: str
    updates: int
    hot_updates: int
    dead_rows: int
    table_bytes: int | None
    index_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReading:
    """The server at one time."""

    wal_bytes: int
    """its current WAL insert position, in bytes from the beginning of all WAL"""
    epoch: int
    connections: int
    """sessions of this runner, this one included"""
    tables: tuple[TableReading, ...]
    standbys: tuple[Standby, ...]
    multixacts: Mapping[str, float]
    """``age`` divided by the age at which VACUUM does nothing but freeze (manual, 20.10:
    vacuum_multixact_failsafe_age); ``members``, if we may read them, divided by their space; above a half
    every autovacuum is an aggressive one"""


class ServerReader:
    """Reads the tables of a run and hands the reading to ``listener``, at most every :data:`EVERY_S`."""

    def __init__(
        self,
        listener: Callable[[ServerReading], None],
        *,
        every_s: float = EVERY_S,
        clock: Clock | None = None,
    ) -> None:
        self._listener = listener
        self._every_s = every_s
        self._clock = clock or SystemClock()
        self._read_at = float("-inf")
        self._standbys = StandbyLag(limit_bytes=1)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._next = 0

    def look(self, connection: Connection, snapshot: Snapshot) -> None:
        """Read if it is time; raises psycopg.Error if the server is unreachable."""
        now = self._clock.monotonic()
        if now - self._read_at < self._every_s:
            return
        self._read_at = now
        self._listener(self.read(connection, snapshot))

    def read(self, connection: Connection, snapshot: Snapshot) -> ServerReading:
        """Read the server now."""
        tables = sorted({step.table for step in snapshot.steps if step.table})
        self._read_sizes(connection, self._choose(tables, snapshot))
        with _briefly(connection):
            row = connection.execute(_SERVER).fetchone()
            rows = connection.execute(_TABLES, [tables, role_path_of(connection)[1]]).fetchall()
            sessions, epoch = len(read_sessions(connection)), read_epoch(connection)
            assert row is not None  # a SELECT without FROM has one row
            members = self._read_members(connection) if row[2] else {}
        return ServerReading(
            wal_bytes=int(row[0]),
            epoch=epoch,
            connections=sessions + 1,  # this one holds no advisory lock: it writes no data
            tables=tuple(self._table(*r) for r in rows),
            standbys=self._read_standbys(connection),
            multixacts={"age": float(row[1])} | members,
        )

    def _table(self, table: str, updates: int, hot: int, dead: int) -> TableReading:
        table_bytes, index_bytes = self._sizes.get(table, (None, None))
        return TableReading(
            table=table,
            updates=updates,
            hot_updates=hot,
            dead_rows=dead,
            table_bytes=table_bytes,
            index_bytes=index_bytes,
        )

    def _choose(self, tables: Sequence[str], snapshot: Snapshot) -> list[str]:
        """The tables at work, and the next few in turn."""
        at_work = {step.table for step in snapshot.steps if step.state == "running" and step.table}
        turn = [tables[(self._next + n) % len(tables)] for n in range(min(SIZES_AT_A_TIME, len(tables)))]
        self._next += SIZES_AT_A_TIME
        return sorted(at_work.union(turn))

    def _read_sizes(self, connection: Connection, tables: Sequence[str]) -> None:
        try:
            with _briefly(connection):
                rows = connection.execute(_SIZES, [list(tables), role_path_of(connection)[1]]).fetchall()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):  # a later reading has them
            return
        self._sizes.update({name: (table, index) for name, table, index in rows if table is not None})

    def _read_standbys(self, connection: Connection) -> tuple[Standby, ...]:
        try:
            return tuple(self._standbys.read_standbys(connection))
        except Blind:
            return ()

    def _read_members(self, connection: Connection) -> dict[str, float]:
        row = connection.execute(_MEMBERS).fetchone()
        assert row is not None  # an aggregate has one row
        return {"members": row[0] * MEMBERS_PER_FILE / MOST_MEMBERS}


@contextmanager
def _briefly(connection: Connection) -> Iterator[None]:
    """Read only, with short timeouts, so that no other session waits for us."""
    with connection.transaction():
        connection.execute(
            "SET TRANSACTION READ ONLY; SET LOCAL lock_timeout = '50ms'; SET LOCAL statement_timeout = '2s'"
        )
        yield
