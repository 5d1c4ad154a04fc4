"""What runs beside a lock window in these tests: blockers that come and go, and an application that reads
and writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self, TypeVar

import psycopg
from psycopg import sql

from online_migrate.clock import Signal, SystemClock
from online_migrate.events import Event
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.postgres.lock_window import LockWindow
from online_migrate.postgres.locks import LockMode, LockNeed
from online_migrate.postgres.long_statement import run_long_statement
from online_migrate.postgres.window_rules import WindowRules

E = TypeVar("E", bound=Event)
ROWS = 5000
NO_FENCE = sql.SQL("SELECT 1 AS fence")
TABLES = f"""
CREATE TABLE public.parent (id int PRIMARY KEY, note text);
INSERT INTO public.parent SELECT i, 'p' FROM generate_series(1, 10) i;
CREATE TABLE public.child (id int PRIMARY KEY, parent_id int NOT NULL, v int NOT NULL DEFAULT 0, w int NOT
  NULL DEFAULT 0);
INSERT INTO public.child SELECT i, i % 10 + 1 FROM generate_series(1, {ROWS}) i;
ANALYZE"""


class Listener:
    """Keeps every event; ``await_event`` waits for one of a type."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event_type: type[Event], **fields: Any) -> None:
        self.events.append(event_type(**fields))

    def of(self, kind: type[E]) -> list[E]:
        return [e for e in self.events if isinstance(e, kind)]

    def await_one(self, kind: type[E], *, seconds: float = 10.0) -> E:
        await_true(lambda: bool(self.of(kind)), seconds=seconds)
        return self.of(kind)[0]


@dataclass(slots=True, kw_only=True)
class Site:
    """A database with a parent and a child table, and our two sessions on it."""

    dsn: str
    work: Connection
    watch: Connection
    heard: Listener = field(default_factory=Listener)
    signal: Signal = field(default_factory=Signal)

    def window(self, **bounds: Any) -> LockWindow:
        rules = WindowRules(**{"lock_wait_s": 8.0, **bounds})
        return LockWindow(
            work=self.work,
            watch=self.watch,
            rules=rules,
            fence=NO_FENCE,
            clock=SystemClock(),
            signal=self.signal,
            emit=self.heard,
        )

    def long(self, statement: str, *, limit_s: float = 30.0, needs: Sequence[LockNeed] | None = None) -> None:
        run_long_statement(
            sql.SQL(statement),
            work=self.work,
            watch=self.watch,
            fence=NO_FENCE,
            limit_s=limit_s,
            clock=SystemClock(),
            signal=self.signal,
            emit=self.heard,
            needs=needs,
        )

    def columns(self, table: str) -> set[str]:
        query = (
            "SELECT attname FROM pg_attribute WHERE attrelid = ('public.' || %s)::regclass AND attnum > 0"
            " AND NOT"
            " attisdropped"
        )
        return {str(name) for (name,) in self.watch.execute(query, [table]).fetchall()}


@contextmanager
def site_on(dsn: str) -> Iterator[Site]:
    """Our two sessions, in a database that holds the two tables from then on."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLES)
    with sessions_on(dsn) as site:
        yield site


@contextmanager
def sessions_on(dsn: str) -> Iterator[Site]:
    connector = Connector(dsn=dsn)
    with connector.open("work") as work, connector.open("watch") as watch:
        yield Site(dsn=dsn, work=work, watch=watch)


def need(table: str, mode: LockMode = LockMode.ACCESS_EXCLUSIVE) -> LockNeed:
    return LockNeed(schema="public", name=table, mode=mode)


def ddl(*statements: str) -> list[sql.SQL]:
    return [sql.SQL(s) for s in statements]


@contextmanager
def blocker(
    dsn: str, statement: str = "SELECT count(*) FROM public.child", *, application: str = "psql"
) -> Iterator[psycopg.Connection]:
    """A session that has run the statement and sits in its transaction."""
    with psycopg.connect(dsn, application_name=application) as connection:
        connection.execute(statement.encode())
        try:
            yield connection
        finally:
            if not connection.closed:
                connection.rollback()


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Run ``work`` beside the test; its error, if any, is in the list afterwards."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # the test reads it
            errors.append(error)

    thread = threading.Thread(target=run, name="beside")
    thread.start()
    try:
        yield errors
    finally:
        thread.join()


READ = "SELECT v FROM public.child WHERE id = 7"
WRITE = "UPDATE public.child SET v = v + 1 WHERE id = 8"
WRITE_PARENT = "UPDATE public.parent SET note = 'q' WHERE id = 3"


class Application:
    """A reader and a writer that go on and on; the longest wait and every error are kept."""

    def __init__(
        self, dsn: str, statements: Sequence[str] = (READ, WRITE), *, pause_s: float = 0.002
    ) -> None:
        self._dsn = dsn
        self._over = threading.Event()
        self._pause_s = pause_s
        self.longest_s = 0.0
        self.count = 0
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._go, args=(s,), name=s) for s in statements]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        await_true(lambda: self.count > 3 or bool(self.errors))
        self.longest_s = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _go(self, statement: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True, application_name="shop") as connection:
            while not self._over.wait(self._pause_s):
                began = monotonic()
                try:
                    connection.execute(statement.encode())
                except psycopg.Error as error:
                    self.errors.append(f"{error.sqlstate} {error}")
                self.longest_s = max(self.longest_s, monotonic() - began)
                self.count += 1


def await_true(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Look every 10 ms; fails where it does not come true."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"it did not come true within {seconds:.0f} s"
        threading.Event().wait(0.01)


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def is_waiting(watch: Connection, pid: int) -> bool:
    """Does this session wait in a lock's queue?"""
    row = watch.execute("SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", [pid]).fetchone()
    return row is not None and row[0] > 0
