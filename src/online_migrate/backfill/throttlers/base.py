"""What a throttler is, and how several together decide whether the backfill holds; they fail closed.

A throttler reports the utilisation of a limit and the reason.  The worst decides; one that stops answering is
red.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final, Protocol

import psycopg
from psycopg import sql

from online_migrate.clock import Clock
from online_migrate.figures import short_seconds_text
from online_migrate.journal.advisory import ADVISORY_KEY
from online_migrate.postgres.connection import Connection

GREEN_AT: Final = 0.9
"""utilisation; a red throttler turns green at this: without a gap, the backfill would stop and start at
each batch"""
READ_TIMEOUT_S: Final = 2.0
"""seconds; a longer reading is cancelled and counts as no answer: far below stale_after_s, and far above the
milliseconds that the statistics views take"""
SLOW_S: Final = 0.25
"""seconds; a slower throttler is read less often, since nothing is written meanwhile"""
SLOW_SHARE: Final = 0.25
"""of the time that reading a slow one may take; it is always read often enough not to become stale"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A throttler's answer.  ``utilisation`` 1.0 and above holds; ``reason`` is a sentence with figures and
    units.
    """

    name: str
    utilisation: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgedReading:
    """A reading, its age in seconds, and whether it holds the backfill now.

    For a throttler that does not answer, ``utilisation`` is at least 1.0 and ``reason`` says since when and
    why.
    """

    name: str
    utilisation: float
    reason: str
    age_s: float
    is_red: bool
    took_s: float = 0.0
    """duration of the last reading"""


class Throttler(Protocol):
    """One health reading.  May remember earlier readings; is read from one thread at a time."""

    @property
    def name(self) -> str:
        """A short stable name, the key of the plan's ``hold_when``."""

    def read(self, connection: Connection) -> Reading:
        """Execute one short query, :func:`bounded`; raises psycopg.Error without an answer, or without the
        right to it.

        ``connection`` is in autocommit mode and outside a transaction, before and after.
        """

    def blind(self, connection: Connection) -> str | None:
        """The remedy for what the role lacks for this reading; None if it lacks nothing."""


class Blind(psycopg.errors.InsufficientPrivilege):
    """The role may not see what the throttler reads: the view shows NULLs instead of figures."""


@dataclass(slots=True, kw_only=True)
class _State:
    """The state of one throttler; times are the clock's seconds."""

    throttler: Throttler
    first_read_at: float | None = None
    read_at: float | None = None
    answered_at: float | None = None
    took_s: float = 0.0
    reading: Reading | None = None
    error: str = "not read yet"
    is_red: bool = True

    def is_due(self, now: float, every_s: float, stale_after_s: float) -> bool:
        if self.took_s > SLOW_S:
            every_s = max(every_s, min(self.took_s / SLOW_SHARE, stale_after_s / 2))
        return self.read_at is None or now - self.read_at >= every_s

    def read(self, connection: Connection, clock: Clock) -> None:
        self.read_at = clock.monotonic()
        if self.first_read_at is None:
            self.first_read_at = self.read_at
        try:
            reading = self.throttler.read(connection)
        except psycopg.Error as error:
            self.error = " ".join(str(error).split()) or type(error).__name__
            return
        finally:
            self.took_s = clock.monotonic() - self.read_at
        was_red = self.reading is not None and self.is_red
        self.is_red = reading.utilisation > GREEN_AT if was_red else reading.utilisation >= 1.0
        self.reading, self.error, self.answered_at = reading, "", clock.monotonic()

    def aged(self, now: float, stale_after_s: float) -> AgedReading:
        since = self.first_read_at if self.answered_at is None else self.answered_at
        age_s = 0.0 if since is None else max(now - since, 0.0)
        last = self.reading
        if last is not None and age_s < stale_after_s:
            is_between = self.is_red and last.utilisation < 1
            return AgedReading(
                name=last.name,
                utilisation=last.utilisation,
                reason=last.reason + f"; released at {GREEN_AT:.0%} of the limit" * is_between,
                age_s=age_s,
                is_red=self.is_red,
                took_s=self.took_s,
            )
        return AgedReading(
            name=self.throttler.name,
            utilisation=1.0 if last is None else max(last.utilisation, 1.0),
            reason=f"throttler {self.throttler.name} has not answered for {short_seconds_text(age_s)}"
            f" ({self.error or 'it was not read again'})",
            age_s=age_s,
            is_red=True,
            took_s=self.took_s,
        )


class Throttle:
    """Several throttlers as one: red while any is red.  Fails closed.

    Each is read at most every ``every_s`` seconds, and a slow one less often.  One that raises keeps its last
    reading for ``stale_after_s`` and is red from then on; one that has never answered is red at once.
    Workers may share a throttle.
    """

    def __init__(
        self,
        throttlers: Sequence[Throttler],
        clock: Clock,
        *,
        every_s: float = 1.0,
        stale_after_s: float = 15.0,
    ) -> None:
        self.throttlers = tuple(throttlers)
        self._clock = clock
        self._every_s = every_s
        self._stale_after_s = stale_after_s
        self._states = tuple(_State(throttler=t) for t in self.throttlers)
        self._turn = Lock()

    def read(self, connection: Connection) -> tuple[AgedReading, ...]:
        """Read those that are due and return all readings.  Raises no psycopg.Error: a lost connection is no
        answer.
        """
        if self._turn.acquire(timeout=self._every_s):  # otherwise another worker is reading, and takes long
            try:
                for state in self._states:
                    if state.is_due(self._clock.monotonic(), self._every_s, self._stale_after_s):
                        state.read(connection, self._clock)
            finally:
                self._turn.release()
        return self.readings()

    def readings(self) -> tuple[AgedReading, ...]:
        """All readings with their age now, in the plan's order; reads none again."""
        now = self._clock.monotonic()
        return tuple(s.aged(now, self._stale_after_s) for s in self._states)

    def held_by(self, named: str = "") -> AgedReading | None:
        """The reading that holds the backfill; None if none is red.  Without new reads, readings become
        stale, then red.

        It is the worst; but while ``named``, the one reported before, is red, it remains that one: two do not
        alternate.
        """
        red = [r for r in self.readings() if r.is_red]
        still = next((r for r in red if r.name == named), None)
        return still or max(red, key=lambda r: r.utilisation, default=None)


@contextmanager
def bounded(connection: Connection, timeout_s: float = READ_TIMEOUT_S) -> Iterator[None]:
    """A read-only transaction whose statements each end within ``timeout_s``; its settings end with it."""
    with connection.transaction():
        connection.execute(
            sql.SQL("SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}").format(
                sql.Literal(f"{max(round(timeout_s * 1000), 1)}ms")
            )
        )
        yield


SEES_ALL: Final = "pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
"""SQL: whether the role sees other sessions' statistics (manual, 28.2 "The Cumulative Statistics System")"""

OUR_PIDS: Final = f"""
    (SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
      WHERE l.locktype = 'advisory' AND l.classid = {ADVISORY_KEY[0]} AND l.objid = {ADVISORY_KEY[1]}
        AND l.objsubid = 2 AND l.pid IS NOT NULL UNION ALL SELECT pg_backend_pid())"""  # noqa: S608  # constants of ours
"""SQL: our sessions in this database, by our advisory lock: application_name is only for people"""


def blind_without_stats(connection: Connection) -> str | None:
    """The remedy if the role does not see other sessions' statistics."""
    row = connection.execute(f"SELECT {SEES_ALL}, quote_ident(current_user)").fetchone()
    assert row is not None  # a SELECT without FROM has one row
    return None if row[0] else f"GRANT pg_read_all_stats TO {row[1]}"


def ensure_sees_all(sees_all: object) -> None:
    """Raise :class:`Blind` if the reading was made without the right to it: its NULLs would look like good
    health.
    """
    if not sees_all:
        raise Blind(
            "the role does not see other sessions' statistics: it is not a member of pg_read_all_stats"
        )
