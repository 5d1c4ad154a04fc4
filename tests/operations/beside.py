"""What runs beside an operation: an application that writes, samples of the locks, sessions that block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Self

import psycopg

from online_migrate.postgres.locks import LockMode

Connection = psycopg.Connection[tuple[Any, ...]]
Held = dict[str, LockMode]
"""relation → the strongest mode"""

_HELD = """
SELECT l.relation::int8, l.mode FROM pg_locks l
 WHERE l.pid = %s AND l.locktype = 'relation' AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

_RELATIONS = """
SELECT c.oid::int8, n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n
  ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'online_migrate')"""

TRAFFIC = (
    "UPDATE users SET balance_kopeks = balance_kopeks + 1 WHERE id = (SELECT min(id) FROM users)",
    (
        "INSERT INTO transactions (user_id, type, amount_kopeks, is_completed, created_at)"
        " SELECT max(id), 'deposit', 1, true, now() FROM users"
    ),
    "UPDATE transactions SET amount_kopeks = amount_kopeks + 1 WHERE id = (SELECT min(id) FROM transactions)",
    (
        "INSERT INTO users (telegram_id, status, language, balance_kopeks, used_promocodes,"
        " has_had_paid_subscription,"
        " auto_promo_group_assigned, created_at, updated_at)"
        " VALUES ((extract(epoch FROM clock_timestamp()) * 1e6)::int8, 'active', 'fa', 0, 0, false, false,"
        " now(), now())"
    ),
)
"""the shop's own statements on the two tables that every case works on, columns named"""
PAUSE_S = 0.002
_GATE = 4711
"""the advisory lock of drops that are held back"""
LOOK_S = 0.001
"""between two readings of the locks, besides the reading itself; what cannot be seen so is proven by its own
transaction"""


def await_true(look: Callable[[], object], *, for_s: float = 10.0) -> None:
    """Until ``look`` gives a truth; looks every 5 ms."""
    end = monotonic() + for_s
    while not look():
        if monotonic() > end:
            raise AssertionError(f"not so within {for_s:.0f} s")
        threading.Event().wait(0.005)


class Writer:
    """An application that writes every few milliseconds; every latency and every error is kept."""

    def __init__(self, dsn: str, statements: Sequence[str] = TRAFFIC) -> None:
        self._dsn = dsn
        self._statements = statements
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="writer")
        self.longest_s = 0.0
        self.count = 0
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        await_true(lambda: self.count >= len(self._statements) or self.errors)
        self.longest_s = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True, application_name="shop") as connection:
            while not self._over.wait(PAUSE_S):
                statement = self._statements[self.count % len(self._statements)]
                began = monotonic()
                try:
                    connection.execute(statement.encode())
                except psycopg.Error as error:
                    self.errors.append(f"{statement}: {error}")
                self.longest_s = max(self.longest_s, monotonic() - began)
                self.count += 1


class Eyes:
    """A second session that samples what one session holds, every few milliseconds, on relations that
    existed before.
    """

    def __init__(self, dsn: str, pid: int) -> None:
        self._dsn = dsn
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="eyes")
        self._error: Exception | None = None
        self.held: Held = {}
        self.samples = 0

    def __enter__(self) -> Self:
        self._thread.start()
        await_true(lambda: self.samples or self._error)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                names = read_relations(connection)
                while not self._over.wait(LOOK_S):
                    merge(self.held, read_held(connection, self._pid, names))
                    self.samples += 1
        except Exception as error:  # noqa: BLE001  # raised where the test waits
            self._error = error


def read_relations(connection: Connection) -> dict[int, str]:
    """The users' relations by OID, the journal's aside."""
    return {int(oid): str(name) for oid, name in connection.execute(_RELATIONS)}


def read_held(connection: Connection, pid: int, names: dict[int, str]) -> Held:
    """What a session holds now on these relations."""
    held: Held = {}
    for oid, mode in connection.execute(_HELD, [pid]).fetchall():
        if oid in names:
            merge(held, {names[oid]: LockMode.from_pg_locks(mode)})
    return held


def merge(held: Held, more: Held) -> None:
    """Keep the strongest of each."""
    for name, mode in more.items():
        held[name] = max(mode, held.get(name, mode))


def from_the_side(held: Held) -> Held:
    """Without what every statement of an application takes."""
    return {name: mode for name, mode in held.items() if mode > LockMode.ROW_EXCLUSIVE}


@contextmanager
def old_snapshot(dsn: str, *, reads: str = "pg_class") -> Iterator[Connection]:
    """A session whose transaction keeps an old snapshot open, and has read a table: a concurrent build waits
    for it before its end, a concurrent drop on that table before each of its steps.
    """
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"SELECT FROM {reads} LIMIT 1")
        yield connection
        connection.rollback()


@contextmanager
def drops_held_back(dsn: str) -> Iterator[Callable[[], bool]]:
    """Every DROP waits at its end, its locks held, until the block is left; tells whether one waits."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"""CREATE FUNCTION hold_back() RETURNS event_trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM pg_advisory_xact_lock({_GATE}); END$$"""
        )
        connection.execute("CREATE EVENT TRIGGER hold_back ON sql_drop EXECUTE FUNCTION hold_back()")
        connection.execute(f"SELECT pg_advisory_lock({_GATE})")

        def is_one_waiting() -> bool:
            query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
            return connection.execute(query, [_GATE]).fetchone() is not None

        try:
            yield is_one_waiting
        finally:
            connection.execute("DROP EVENT TRIGGER hold_back")
            connection.execute(f"SELECT pg_advisory_unlock({_GATE})")
            connection.execute("DROP FUNCTION hold_back")


def is_waiting_for_snapshots(connection: Connection, pid: int) -> bool:
    """Does that session's concurrent build wait at its end, or its concurrent drop?"""
    row = connection.execute(
        """SELECT FROM pg_stat_activity a LEFT JOIN pg_stat_progress_create_index p USING (pid)
            WHERE a.pid = %s AND (p.phase = 'waiting for old snapshots'
                                  OR a.query LIKE 'DROP INDEX%%' AND pg_blocking_pids(pid) <> '{}')""",
        [pid],
    ).fetchone()
    return row is not None
