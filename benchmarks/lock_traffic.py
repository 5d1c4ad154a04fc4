"""The load beside a change in the locks' benchmark: a reader and a writer without pause, and a blocker."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Self

import psycopg

READ = b"SELECT amount FROM t WHERE id = %s"
WRITE = b"UPDATE t SET amount = amount + 1 WHERE id = %s"
FIRST_ROW = 2
"""the blocker locks row 1"""
WAITING = b"""
SELECT max(extract(epoch FROM clock_timestamp() - l.waitstart))::float8
  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE NOT l.granted AND a.application_name = 'shop'"""
SAMPLE_S = 0.004
BLOCKED_S = 1.5
FREE_S = 0.6


@dataclass(slots=True)
class Hammer:
    """One reader and one writer, each statement a transaction; the longest wait and every error since
    :meth:`mark`.
    """

    dsn: str
    rows: int
    longest_s: float = 0.0
    in_queue_s: float = 0.0
    """the longest time that a statement waited in a lock's queue, sampled every 4 ms: without the time of
    disk and processors"""
    statements: int = 0
    errors: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for number, statement in enumerate((READ, WRITE)):
            thread = threading.Thread(target=self._go, args=(statement, Random(number)))
            self._threads.append(thread)
        self._threads.append(threading.Thread(target=self._look))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def mark(self) -> None:
        """Reset the longest wait."""
        self.longest_s, self.in_queue_s, self.statements = 0.0, 0.0, 0

    def rest(self, seconds: float) -> None:
        """Continue for this many seconds."""
        self._over.wait(seconds)

    def _look(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self._over.wait(SAMPLE_S):
                row = connection.execute(WAITING).fetchone()
                self.in_queue_s = max(self.in_queue_s, (row and row[0]) or 0.0)

    def _go(self, statement: bytes, dice: Random) -> None:
        with psycopg.connect(self.dsn, autocommit=True, application_name="shop") as connection:
            while not self._over.wait(0.001):
                began = monotonic()
                try:
                    connection.execute(statement, [dice.randint(FIRST_ROW, self.rows)])
                except psycopg.Error as error:
                    self.errors.append(f"{error.sqlstate}: {error}")
                self.longest_s = max(self.longest_s, monotonic() - began)
                self.statements += 1


class Blocker:
    """A transaction that has read and written the table and sits idle for 1.5 s; 0.6 s later the next one."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go)

    def __enter__(self) -> Self:
        self._thread.start()
        self._over.wait(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _go(self) -> None:
        with psycopg.connect(self._dsn, application_name="report") as connection:
            while not self._over.is_set():
                connection.execute("SELECT count(*) FROM t WHERE id < 100")
                connection.execute("UPDATE t SET state = state WHERE id = 1")
                self._over.wait(BLOCKED_S)
                connection.commit()
                self._over.wait(FREE_S)
