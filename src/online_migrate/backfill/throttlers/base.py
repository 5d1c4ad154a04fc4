"""Health readings that hold us: what a throttler is, and how several are one, failing closed.

A throttler says how far a limit is used up and why.  The worst of them decides; one that no longer answers is red.
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
from online_migrate.journal.lease import ADVISORY_KEY
from online_migrate.postgres.connection import Connection

GREEN_BELOW: Final = 0.9
"""utilisation; a throttler that is red turns green below this: without a gap we would stop and go at each batch"""
READ_TIMEOUT_S: Final = 2.0
"""seconds; a reading that takes longer is cancelled and counts as no answer: far below stale_after_s, and far above the
milliseconds that the statistics views take"""


SLOW_S: Final = 0.25
"""seconds; a throttler that takes longer is asked less often, since nothing is written meanwhile"""
SLOW_SHARE: Final = 0.25
"""of the time in which a slow one is asked; never so seldom that its answer grows stale"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a throttler saw.  ``utilisation`` 1.0 and above holds; ``reason`` is a sentence with figures and units."""

    name: str
    utilisation: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgedReading:
    """A reading, how old it is in seconds, and whether it holds us now.

    Of a throttler that does not answer, ``utilisation`` is at least 1.0 and ``reason`` says since when and why.
    """

    name: str
    utilisation: float
    reason: str
    age_s: float
    is_red: bool
    took_s: float = 0.0
    """to ask, the last time"""


class Throttler(Protocol):
    """One health reading.  May remember earlier looks; is read from one thread at a time."""

    @property
    def name(self) -> str:
        """A short stable name, the key of the plan's ``hold_when``."""

    def read(self, connection: Connection) -> Reading:
        """One short query, :func:`bounded`; raises psycopg.Error where there is no answer, or no right to see one.

        ``connection`` is in autocommit and in no transaction, and is so afterwards.
        """

    def blind(self, connection: Connection) -> str | None:
        """What the role lacks for this reading, as a remedy for the operator; None where it sees."""


class Blind(psycopg.errors.InsufficientPrivilege):
    """The role may not see what the throttler must know: NULLs where there are figures."""


@dataclass(slots=True, kw_only=True)
class _State:
    """What is known of one throttler; times are the clock's seconds."""

    throttler: Throttler
    first_asked_at: float | None = None
    asked_at: float | None = None
    answered_at: float | None = None
    took_s: float = 0.0
    reading: Reading | None = None
    error: str = "not asked yet"
    is_red: bool = True

    def is_due(self, now: float, every_s: float, stale_after_s: float) -> bool:
        if self.took_s > SLOW_S:
            every_s = max(every_s, min(self.took_s / SLOW_SHARE, stale_after_s / 2))
        return self.asked_at is None or now - self.asked_at >= every_s

    def ask(self, connection: Connection, clock: Clock) -> None:
        self.asked_at = clock.monotonic()
        if self.first_asked_at is None:
            self.first_asked_at = self.asked_at
        try:
            reading = self.throttler.read(connection)
        except psycopg.Error as error:
            self.error = " ".join(str(error).split()) or type(error).__name__
            return
        finally:
            self.took_s = clock.monotonic() - self.asked_at
        was_red = self.reading is not None and self.is_red
        self.is_red = reading.utilisation >= (GREEN_BELOW if was_red else 1.0)
        self.reading, self.error, self.answered_at = reading, "", clock.monotonic()

    def aged(self, now: float, stale_after_s: float) -> AgedReading:
        since = self.first_asked_at if self.answered_at is None else self.answered_at
        age_s = 0.0 if since is None else max(now - since, 0.0)
        last = self.reading
        if last is not None and age_s < stale_after_s:
            return AgedReading(
                name=last.name,
                utilisation=last.utilisation,
                reason=last.reason,
                age_s=age_s,
                is_red=self.is_red,
                took_s=self.took_s,
            )
        return AgedReading(
            name=self.throttler.name,
            utilisation=1.0 if last is None else max(last.utilisation, 1.0),
            reason=f"{self.throttler.name} has not answered for {short_seconds_text(age_s)}: "
            + (self.error or "it was not asked again"),
            age_s=age_s,
            is_red=True,
            took_s=self.took_s,
        )


class Throttle:
    """Several throttlers as one: red while any is red.  Fails closed.

    Each is asked at most every ``every_s`` seconds, and a slow one less often.  One that errors keeps its last reading for ``stale_after_s`` and
    is red from then on; one that has never answered is red at once.  Workers may share it: it asks for one at a time.
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
        """Ask those that are due and give all readings.  Raises nothing of psycopg: a lost connection is no answer."""
        if self._turn.acquire(timeout=self._every_s):  # else another worker asks now, and takes long
            try:
                for state in self._states:
                    if state.is_due(self._clock.monotonic(), self._every_s, self._stale_after_s):
                        state.ask(connection, self._clock)
            finally:
                self._turn.release()
        return self.readings()

    def readings(self) -> tuple[AgedReading, ...]:
        """All readings as old as they are now, in the plan's order; asks nobody."""
        now = self._clock.monotonic()
        return tuple(s.aged(now, self._stale_after_s) for s in self._states)

    def held_by(self, named: str = "") -> AgedReading | None:
        """The reading that holds us; None where none is red.  While nobody reads, readings grow old, and then red.

        It is the worst, but that of ``named``, which was told before, for as long as it is red: two do not take turns.
        """
        red = [r for r in self.readings() if r.is_red]
        still = next((r for r in red if r.name == named), None)
        return still or max(red, key=lambda r: r.utilisation, default=None)


@contextmanager
def bounded(connection: Connection, timeout_s: float = READ_TIMEOUT_S) -> Iterator[None]:
    """A read-only transaction whose statements each end within ``timeout_s``; nothing of it outlives it."""
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
"""SQL: the sessions of ours in this database, by our advisory lock: application_name is for people"""


def blind_without_stats(connection: Connection) -> str | None:
    """The remedy where the role does not see other sessions' statistics."""
    row = connection.execute(f"SELECT {SEES_ALL}, quote_ident(current_user)").fetchone()
    assert row is not None  # a SELECT without FROM has one row
    return None if row[0] else f"GRANT pg_read_all_stats TO {row[1]}"


def ensure_sees_all(sees_all: object) -> None:
    """Raise :class:`Blind` where a reading was made without the right to see: its NULLs would look like health."""
    if not sees_all:
        raise Blind("the role does not see other sessions' statistics: it lacks pg_read_all_stats")
