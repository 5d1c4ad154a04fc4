"""Commits of ours that wait for a synchronous standby.

Such a commit is durable on the primary, is seen by no other session, and no timeout ends its wait.
Source: PostgreSQL manual, 27.2.8 "Synchronous Replication"; wait event SyncRep.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg

from online_migrate.clock import Clock
from online_migrate.errors import OnlineMigrateError
from online_migrate.figures import seconds_text
from online_migrate.journal.advisory import SESSIONS
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.waiting import Waiting

KIND: Final = "standby_commit"
"""of the wait, in events and metrics"""
LONG_S: Final = 1.0
"""a shorter wait is what synchronous replication costs"""
WATCH_AFTER_S: Final = 2.0
_WATCH_EVERY_S: Final = 1.0
_END_S: Final = 12.0
"""how long the end of a watch waits for its thread: an attempt to connect takes up to 10 s"""

_COLUMNS: Final = """
SELECT a.pid, a.application_name, extract(epoch FROM clock_timestamp() - a.query_start)::float8,
       current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_replication r WHERE r.sync_state IN ('sync', 'quorum'))
  FROM pg_stat_activity a"""
_OF_RUNNERS: Final = f"a.pid IN (SELECT s.pid FROM ({SESSIONS}) AS s (pid, name))"  # noqa: S608
_WAITS: Final = f"""
   AND a.wait_event = 'SyncRep' AND clock_timestamp() - a.query_start >= make_interval(secs => {LONG_S})
 ORDER BY a.query_start, a.pid"""
COMMIT_WAITS: Final = f"{_COLUMNS} WHERE {_OF_RUNNERS} {_WAITS}"
"""of runners of this database; for :func:`to_commit_waits`"""
_READ: Final = f"{_COLUMNS} WHERE (a.pid = ANY (%s) OR {_OF_RUNNERS}) {_WAITS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitWait:
    """One session whose commit waits."""

    pid: int
    session: str
    """its application_name"""
    seconds: float
    standby_names: str
    """synchronous_standby_names"""
    streaming: int
    """synchronous standbys that are connected now"""


def read_commit_waits(connection: Connection, pids: Sequence[int] = ()) -> tuple[CommitWait, ...]:
    """Those of runners of this database, and of the sessions ``pids``; the longest first.

    Another role sees them only with pg_read_all_stats.
    """
    return to_commit_waits(connection.execute(_READ, [list(pids)]))


def to_commit_waits(rows: Iterable[tuple[Any, ...]]) -> tuple[CommitWait, ...]:
    """What :data:`COMMIT_WAITS` selects."""
    return tuple(
        CommitWait(pid=pid, session=name, seconds=seconds, standby_names=names, streaming=streaming)
        for pid, name, seconds, names, streaming in rows
    )


def commit_waits_text(waits: Sequence[CommitWait]) -> str:
    """What waits, why, and what ends it; empty without waits."""
    if not waits:
        return ""
    first, *others = waits
    more = f" and {len(others)} more" if others else ""
    return (
        f"the commit of session {first.session} (pid {first.pid}){more} has waited for"
        f" {seconds_text(first.seconds)} for a synchronous standby (SyncRep); synchronous_standby_names is"
        f" '{first.standby_names}', connected are {first.streaming}; start the standby, or give it up:"
        " ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf();"
    )


def report_commit_waits(waiting: Waiting, waits: Sequence[CommitWait]) -> None:
    """Report them, or the end of the wait."""
    if waits:
        waiting.report(commit_waits_text(waits), cause=tuple(w.pid for w in waits))
    else:
        waiting.end()


@contextmanager
def reporting_commits(
    connector: Connector, emit: Callable[..., None], clock: Clock, connection: Connection
) -> Iterator[None]:
    """Report from a thread if a commit of ``connection``, or of a runner, waits inside the block.

    It opens a session of its own only if the block lasts for more than :data:`WATCH_AFTER_S`.
    """
    over = threading.Event()
    beside = replace(connector, on_statement=None)
    pid = connection.info.backend_pid

    def watch() -> None:
        if over.wait(WATCH_AFTER_S):
            return
        with (
            suppress(psycopg.Error, OnlineMigrateError, OSError),
            beside.open("commits") as watching,
            Waiting(emit, clock, KIND) as waiting,
        ):
            while not over.wait(_WATCH_EVERY_S):
                report_commit_waits(waiting, read_commit_waits(watching, [pid]))

    thread = threading.Thread(target=watch, name="commits", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_END_S)
