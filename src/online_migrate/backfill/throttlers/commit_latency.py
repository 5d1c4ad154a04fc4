"""Holds while commits are slow: a disk that is too slow, or a synchronous standby that does not answer.

Our batches commit asynchronously and do not notice it; the application does.  So the throttler commits a
probe: an empty transactional message with the prefix ``online_migrate`` in the WAL (manual, 9.28.6,
pg_logical_emit_message).  It changes no table; a logical consumer that requests messages receives an empty
one.

Our sessions set synchronous_commit; this commit uses the default of the database, or of our role in it: with
remote_apply, for example, the application waits for standbys to replay.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final

import psycopg

from online_migrate.backfill.throttlers.base import READ_TIMEOUT_S, Reading
from online_migrate.figures import short_seconds_text
from online_migrate.postgres.connection import Connection, turn_of

# One round trip, both times by the server's clock: network latency is not commit latency.
_PROBE: Final = """
    BEGIN; SET LOCAL synchronous_commit TO DEFAULT;
    SELECT pg_logical_emit_message(true, 'online_migrate', ''); SELECT clock_timestamp();
    COMMIT; SELECT clock_timestamp()"""


class CommitLatency:
    """Red if a commit with the database's synchronous_commit takes ``limit_s`` seconds or longer."""

    name = "commit_latency"

    def __init__(self, *, limit_s: float) -> None:
        self._limit_s = limit_s

    def blind(self, connection: Connection) -> str | None:  # noqa: ARG002  # every role may write a message
        return None

    def read(self, connection: Connection) -> Reading:
        with turn_of(connection), cancelled_after(connection, max(READ_TIMEOUT_S, 2 * self._limit_s)):
            took_s = _measure_commit_s(connection)
        return Reading(
            name=self.name,
            utilisation=took_s / self._limit_s,
            reason=f"our probe commit took {short_seconds_text(took_s)}"
            f" (limit {short_seconds_text(self._limit_s)})",
        )


def _measure_commit_s(connection: Connection) -> float:
    times: list[datetime] = []
    try:
        cursor = connection.execute(_PROBE)
        for result in cursor.results():
            if result.description is not None:
                times += [v for row in result.fetchall() for v in row if isinstance(v, datetime)]
    except psycopg.Error:
        with suppress(psycopg.Error):
            connection.rollback()
        raise
    before, after = times
    return max((after - before).total_seconds(), 0.0)


@contextmanager
def cancelled_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Cancel what still runs after so many seconds: the server has no timeout for a COMMIT.

    A COMMIT that waits for a standby then ends, committed, with a warning (manual, 27.2.8.3).
    """

    def cancel() -> None:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=READ_TIMEOUT_S)

    timer = threading.Timer(seconds, cancel)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
