"""Read a run's journal again and again: all of it the first time, then only what has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import sql

from online_migrate.journal.advisory import SESSIONS
from online_migrate.journal.commit_waits import COMMIT_WAITS, CommitWait, to_commit_waits
from online_migrate.journal.lease import HOLDER, Holder, to_holder
from online_migrate.journal.records import (
    ApprovalRecord,
    CursorRecord,
    HistoryRecord,
    RunRecord,
    StageRecord,
    StepRecord,
    columns,
    to_records,
)
from online_migrate.journal.requests import OPEN_STOP, PAUSES, Pause, to_pause
from online_migrate.journal.tuning import TUNES, Tuning, to_tuning
from online_migrate.postgres.connection import Connection

HISTORY: Final = 500
"""the newest events that are kept: an hour of throughput of one table, and some"""

_MARK: Final = "concat_ws('/', min(position), count(*), sum(xmin::text::bigint))"
"""of a stage's steps.  A row that is written again has the number of its writer's transaction in xmin
(manual, 5.5 System Columns)."""
_RUN: Final = "run_id = (SELECT max(run_id) FROM online_migrate.run WHERE plan = %(plan)s)"
_READ: Final = f"""
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT clock_timestamp(), EXISTS ({SESSIONS}), (SELECT count(*) FROM online_migrate.cursor WHERE {_RUN}),
       ({OPEN_STOP});
SELECT {columns(RunRecord)} FROM online_migrate.run WHERE {_RUN};
{HOLDER};
{COMMIT_WAITS};
{PAUSES};
{TUNES};
SELECT {columns(ApprovalRecord)} FROM online_migrate.approval
 WHERE plan = %(plan)s AND approved_at >= (SELECT started_at FROM online_migrate.run WHERE {_RUN})
 ORDER BY approval_id;
SELECT {columns(StageRecord)},
       (SELECT {_MARK} FROM online_migrate.step s WHERE (s.run_id, s.stage) = (t.run_id, t.stage))
  FROM online_migrate.stage t WHERE {_RUN} ORDER BY position;
SELECT {columns(StepRecord)} FROM online_migrate.step
 WHERE {_RUN} AND stage IN (SELECT stage FROM online_migrate.step WHERE {_RUN}
                             GROUP BY stage HAVING {_MARK} <> ALL ('{{%(marks)s}}'::text[]))
 ORDER BY position;
SELECT {columns(CursorRecord)}, xmin::text FROM online_migrate.cursor
 WHERE {_RUN} AND xmin <> ALL ('{{%(xmins)s}}'::xid[]);
SELECT {columns(HistoryRecord)}, history_id FROM online_migrate.history
 WHERE {_RUN} AND history_id > %(last)s ORDER BY history_id DESC LIMIT {HISTORY}"""  # noqa: S608
"""One message, so one round trip and, without a BEGIN, one transaction (manual, 55.2.2.1 Multiple
Statements in a Simple Query).  Steps are sent by the stage, where its mark is not known yet; a cursor,
where its xmin is not."""

_EARLIER: Final = f""";
SELECT {columns(HistoryRecord)} FROM online_migrate.history
 WHERE {_RUN} AND event = ANY ('{{%(events)s}}') ORDER BY history_id DESC LIMIT {HISTORY}"""  # noqa: S608
"""Sent with the first read only."""

Key = tuple[str, str, str]
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJournal:
    """A run as its journal has it.  Stages, steps, cursors and events that have not changed are the same
    objects.
    """

    now: datetime
    """by the server's clock"""
    run: RunRecord
    holder: Holder | None
    """the runner whose heartbeat is the newest, whatever its plan"""
    is_connected: bool
    """a session of a runner is connected"""
    commit_waits: tuple[CommitWait, ...]
    """sessions of a runner whose commit waits for a synchronous standby"""
    approvals: tuple[ApprovalRecord, ...]
    """since the run began, oldest first"""
    stages: tuple[StageRecord, ...]
    steps: Mapping[str, tuple[StepRecord, ...]]
    """of each stage, in the plan's order"""
    cursors: Mapping[Key, CursorRecord]
    history: tuple[HistoryRecord, ...]
    """the newest events, oldest first"""
    is_first: bool
    """nothing read before counts: the first read, another run, or a gap since the last read"""
    news: tuple[HistoryRecord, ...]
    """events since the last read; at the first read the newest of the kinds in ``followed``, however old;
    oldest first"""
    stop_requested_by: str | None
    """of a stop request that the runner has not taken yet"""
    tuning: Tuning
    """what replaces the plan's pace"""
    pause: Pause | None
    """that is in force, whether the runner has paused yet or not"""


class RunReader:
    """Reads the newest run of one plan, each time in one message and one snapshot of the database.

    ``followed`` are the kinds of events whose effect lasts: the first read looks for them further back than
    :data:`HISTORY` events.
    """

    def __init__(self, plan: str, *, followed: Iterable[str] = ()) -> None:
        self._plan = plan
        self._followed = tuple(followed)
        self._forget()

    def _forget(self) -> None:
        self._run_id: int | None = None
        self._steps: dict[str, tuple[StepRecord, ...]] = {}
        self._marks: tuple[str, ...] = ()
        self._cursors: dict[Key, CursorRecord] = {}
        self._xmins: dict[Key, str] = {}
        """of the cursors, as marks"""
        self._history: tuple[HistoryRecord, ...] = ()
        self._last = 0
        """the newest event's number"""

    def read(self, connection: Connection) -> RunJournal | None:
        """What the journal says now; None if the plan never ran."""
        is_first = not self._last
        (facts,), runs, holders, commits, pauses, tunes, approvals, stages, steps, cursors, news, *earlier = (
            self._read(connection)
        )
        now, is_connected, cursors_total, stop_requested_by = facts
        run = next(iter(to_records(RunRecord, runs)), None)
        if run is None:
            return None
        pause = to_pause(pauses)
        is_other = self._run_id not in (None, run.run_id)
        self._run_id = run.run_id
        self._take(stages, steps, cursors, news)
        is_gap = not is_first and len(news) == HISTORY
        if is_other or is_gap or len(self._cursors) != cursors_total:
            # another run; or more events than one read brings; or a changed plan deleted cursors
            self._forget()
            return self.read(connection)
        return RunJournal(
            now=now,
            run=run,
            holder=next(map(to_holder, holders), None),
            is_connected=is_connected,
            commit_waits=to_commit_waits(commits),
            approvals=to_records(ApprovalRecord, approvals),
            stages=to_records(StageRecord, stages),
            steps=dict(self._steps),
            cursors=dict(self._cursors),
            history=self._history,
            is_first=is_first,
            news=self._news(earlier, news),
            stop_requested_by=stop_requested_by,
            tuning=to_tuning(tunes),
            pause=pause if pause is not None and pause.is_in_force else None,
        )

    def _read(self, connection: Connection) -> list[Rows]:
        """The rows of each query; psycopg sends several queries in one message if it has no parameters."""
        known = {
            "plan": sql.Literal(self._plan).as_string(connection),
            "marks": ",".join(self._marks),
            "xmins": ",".join(self._xmins.values()),
            "last": self._last,
            "events": ",".join(self._followed),
        }
        query = _READ if self._last else _READ + _EARLIER
        cursor = connection.execute((query % known).encode())
        rows = list[Rows]()
        while cursor.nextset():
            rows.append(cursor.fetchall())
        return rows

    def _news(self, earlier: list[Rows], news: Rows) -> tuple[HistoryRecord, ...]:
        if earlier:
            return to_records(HistoryRecord, reversed(earlier[0]))
        return self._history[-len(news) :] if news else ()

    def _take(self, stages: Rows, steps: Rows, cursors: Rows, news: Rows) -> None:
        fresh: dict[str, list[StepRecord]] = {}
        for step in to_records(StepRecord, steps):
            fresh.setdefault(step.stage, []).append(step)
        names = [stage[0] for stage in stages]
        known = self._steps | {stage: tuple(records) for stage, records in fresh.items()}
        self._steps = {name: known[name] for name in names if name in known}
        self._marks = tuple(stage[-1] for stage in stages)
        for record, row in zip(to_records(CursorRecord, cursors), cursors, strict=True):
            self._cursors[record.key], self._xmins[record.key] = record, row[-1]
        if news:
            self._history = (*self._history, *to_records(HistoryRecord, reversed(news)))[-HISTORY:]
            self._last = news[0][-1]


def read_step_tables(connection: Connection, run_id: int) -> tuple[str, ...]:
    """The tables of the run's steps, each once."""
    rows = connection.execute(
        "SELECT DISTINCT table_name FROM online_migrate.step WHERE run_id = %s AND table_name <> '' ORDER"
        " BY 1",
        [run_id],
    )
    return tuple(str(name) for (name,) in rows)


def read_epoch(connection: Connection) -> int:
    """How often the lease of this database was taken."""
    row = connection.execute("SELECT epoch FROM online_migrate.epoch").fetchone()
    return 0 if row is None else int(row[0])
