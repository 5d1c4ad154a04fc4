"""What a look at a run's journal reads: all of it the first time, then only what is another than before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import sql

from online_migrate.journal.lease import HOLDER, SESSIONS, Holder, to_holder
from online_migrate.journal.records import (
    CursorRecord,
    HistoryRecord,
    RunRecord,
    StageRecord,
    StepRecord,
    columns,
    to_records,
)
from online_migrate.observe.snapshot import waits as w
from online_migrate.observe.snapshot.views import WaitView
from online_migrate.postgres.connection import Connection

HISTORY: Final = 500
"""events that are looked at, from the newest: an hour of throughput of one table, and some"""

_MARK: Final = "concat_ws('/', min(position), count(*), sum(xmin::text::bigint))"
"""of a stage's steps.  A row that is written anew has the number of its writer's transaction in xmin (manual, 5.5 System Columns)."""
_RUN: Final = "run_id = (SELECT max(run_id) FROM online_migrate.run WHERE plan = %(plan)s)"
_LOOK: Final = f"""
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT clock_timestamp(), EXISTS ({SESSIONS}), (SELECT count(*) FROM online_migrate.cursor WHERE {_RUN}),
       (SELECT min(by_whom) FROM online_migrate.request WHERE plan = %(plan)s AND kind = 'stop' AND taken_at IS NULL);
SELECT {columns(RunRecord)} FROM online_migrate.run WHERE {_RUN};
{HOLDER};
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
 WHERE {_RUN} AND history_id > %(last)s ORDER BY history_id DESC LIMIT {HISTORY}"""  # noqa: S608  # our own columns
"""One message, so one round trip and, without a BEGIN, one transaction (manual, 55.2.2.1 Multiple Statements in a Simple Query).
Steps come by the stage, where its mark is not known yet; a cursor, where its xmin is not."""

_WAITS: Final = f""";
SELECT {columns(HistoryRecord)} FROM online_migrate.history
 WHERE {_RUN} AND event = ANY ('{{{",".join(w.EVENTS)}}}') ORDER BY history_id DESC LIMIT {HISTORY}"""  # noqa: S608  # as above
"""With the first look only: a wait may have begun before the events that are looked at."""

Key = tuple[str, str, str]
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A run as its journal has it.  Stages, steps, cursors and events that have not changed are the same objects."""

    now: datetime
    """by the server's clock"""
    run: RunRecord
    holder: Holder | None
    """who beat last, for whatever plan"""
    is_connected: bool
    """a session of a runner is there"""
    stages: tuple[StageRecord, ...]
    steps: Mapping[str, tuple[StepRecord, ...]]
    """of each stage, in the plan's order"""
    cursors: Mapping[Key, CursorRecord]
    history: tuple[HistoryRecord, ...]
    """the newest events, oldest first"""
    waits: tuple[WaitView, ...]
    """that are open by what was told, however long ago they began"""
    stop_asked_by: str | None
    """by a request that the runner has not come to take"""


class Reader:
    """Reads the newest run of one plan again and again, each time in one message and one snapshot of the database."""

    def __init__(self, plan: str) -> None:
        self._plan = plan
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
        self._waits: w.Open = {}

    def read(self, connection: Connection) -> Known | None:
        """What the journal says now; None where the plan never ran."""
        is_first = not self._last
        (facts,), runs, holders, stages, steps, cursors, news, *waits = self._look(connection)
        now, is_connected, cursors_there, stop_asked_by = facts
        run = next(iter(to_records(RunRecord, runs)), None)
        if run is None:
            return None
        is_other = self._run_id not in (None, run.run_id)
        self._run_id = run.run_id
        self._take(stages, steps, cursors, news)
        is_gap = not is_first and len(news) == HISTORY
        if is_other or is_gap or len(self._cursors) != cursors_there:
            # another run; or more events than are looked at; or the plan changed, and had cursors deleted
            self._forget()
            return self.read(connection)
        self._waits = w.follow(self._waits, self._new_waits(waits, news))
        return Known(
            now=now,
            run=run,
            holder=next(map(to_holder, holders), None),
            is_connected=is_connected,
            stages=to_records(StageRecord, stages),
            steps=dict(self._steps),
            cursors=dict(self._cursors),
            history=self._history,
            waits=tuple(self._waits.values()),
            stop_asked_by=stop_asked_by,
        )

    def _look(self, connection: Connection) -> list[Rows]:
        """The rows of each query; psycopg sends several in one message where it is given no parameters."""
        known = {
            "plan": sql.Literal(self._plan).as_string(connection),
            "marks": ",".join(self._marks),
            "xmins": ",".join(self._xmins.values()),
            "last": self._last,
        }
        look = _LOOK if self._last else _LOOK + _WAITS
        cursor = connection.execute((look % known).encode())
        rows = list[Rows]()
        while cursor.nextset():
            rows.append(cursor.fetchall())
        return rows

    def _new_waits(self, waits: list[Rows], news: Rows) -> tuple[HistoryRecord, ...]:
        """What is to be followed: of the first look all that it asked for, then the events that came since."""
        if waits:
            return to_records(HistoryRecord, reversed(waits[0]))
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
