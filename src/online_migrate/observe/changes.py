"""What a look at a run's journal reads: all of it the first time, then only what is another than before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from online_migrate.journal.store import HistoryRecord, Journal, StageRecord, StepRecord
from online_migrate.observe.memory import Memory

HISTORY: Final = 500
"""events that are looked at, from the newest: an hour of throughput of one table, and some"""

_MARKS: Final = """
    SELECT clock_timestamp(), coalesce(max(history_id), %(last)s), count(*),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM online_migrate.stage WHERE run_id = %(run)s),
           (SELECT jsonb_object_agg(stage, mark)
              FROM (SELECT stage, (count(*), sum(xmin::text::bigint))::text AS mark
                      FROM online_migrate.step WHERE run_id = %(run)s GROUP BY stage) AS steps)
      FROM online_migrate.history WHERE run_id = %(run)s AND history_id > %(last)s"""
"""A row that is written anew has the number of its writer's transaction in xmin (manual, 5.5 System Columns)."""
_STEPS: Final = """
    SELECT stage, step, table_name, state, reason, started_at, ended_at, rows_done FROM online_migrate.step
     WHERE run_id = %s AND stage = %s ORDER BY position"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A run's stages with their steps, and its newest events, oldest first.  What has not changed is the same object."""

    now: datetime
    """by the server's clock"""
    stages: tuple[StageRecord, ...]
    steps: Mapping[str, tuple[StepRecord, ...]]
    """of each stage, in the plan's order"""
    history: tuple[HistoryRecord, ...]


def read_known(journal: Journal, run_id: int, memory: Memory) -> Known:
    """What the journal says of the run now, within the caller's transaction."""
    recent = memory.get("recent", run_id, lambda: _Recent(run_id))
    row = journal.connection.execute(_MARKS, {"run": run_id, "last": recent.last}).fetchone()
    assert row is not None  # an aggregate has one row
    now, last, fresh, stages, steps = row
    recent.read(journal, last, fresh)
    return Known(
        now=now,
        stages=memory.get("stages", (run_id, stages), lambda: journal.read_stages(run_id)),
        steps={stage: _steps(journal, run_id, stage, mark, memory) for stage, mark in (steps or {}).items()},
        history=recent.records,
    )


def _steps(journal: Journal, run_id: int, stage: str, mark: str, memory: Memory) -> tuple[StepRecord, ...]:
    return memory.get(("steps", stage), (run_id, mark), lambda: _read_steps(journal, run_id, stage))


def _read_steps(journal: Journal, run_id: int, stage: str) -> tuple[StepRecord, ...]:
    rows = journal.connection.execute(_STEPS, [run_id, stage]).fetchall()
    return tuple(
        StepRecord(
            stage=r[0],
            step=r[1],
            table=r[2],
            state=r[3],
            reason=r[4],
            started_at=r[5],
            ended_at=r[6],
            rows_done=r[7],
        )
        for r in rows
    )


class _Recent:
    """The newest events of a run: only those are read that came since, as a runner writes one after the other."""

    def __init__(self, run_id: int) -> None:
        self.last = 0
        self.records: tuple[HistoryRecord, ...] = ()
        self._run_id = run_id

    def read(self, journal: Journal, last: int, fresh: int) -> None:
        """Take in so many, of which ``last`` is the newest."""
        if fresh:
            news = journal.read_newest_history(self._run_id, min(fresh, HISTORY))
            self.records = (*self.records, *news)[-HISTORY:]
            self.last = last
