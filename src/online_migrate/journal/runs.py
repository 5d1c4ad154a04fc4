"""All runs in the journal of a database, of whatever plan."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from online_migrate.journal.lease import STALE_AFTER_S, read_holder, read_sessions
from online_migrate.journal.records import ApprovalRecord, columns, to_records
from online_migrate.postgres.connection import Connection

_RUNS: Final = """
SELECT r.plan, r.run_id, r.state, r.reason, r.started_at, r.ended_at,
       coalesce((SELECT t.stage FROM online_migrate.stage t WHERE t.run_id = r.run_id AND t.state <> 'done'
                  ORDER BY t.position LIMIT 1), ''),
       (SELECT h.at FROM online_migrate.history h WHERE h.run_id = r.run_id AND h.event = 'run_started'
         ORDER BY h.history_id DESC LIMIT 1),
       coalesce((SELECT h.fields ->> 'by' FROM online_migrate.history h
                  WHERE h.run_id = r.run_id AND h.event = 'run_started'
                  ORDER BY h.history_id DESC LIMIT 1), '')
  FROM online_migrate.run r ORDER BY r.run_id"""

_APPROVALS: Final = f"""
SELECT {columns(ApprovalRecord)} FROM online_migrate.approval a JOIN online_migrate.run r USING (plan)
 WHERE r.run_id = %s AND a.approved_at >= r.started_at
   AND NOT EXISTS (SELECT FROM online_migrate.run later WHERE later.plan = r.plan AND later.run_id > r.run_id
                      AND later.started_at <= a.approved_at)
 ORDER BY a.approval_id"""  # noqa: S608  # our own columns


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run, in a line."""

    plan: str
    run_id: int
    state: str
    reason: str
    started_at: datetime
    ended_at: datetime | None
    stage: str
    """the first that is not done; empty if all are"""
    resumed_at: datetime | None
    """when a runner last began to work on it"""
    by: str
    """user@host of that runner; empty if it is not known"""
    is_live: bool
    """a runner works on it now"""


def read_runs(connection: Connection) -> tuple[RunSummary, ...]:
    """Oldest first."""
    holder = read_holder(connection)
    is_fresh = holder is not None and holder.heartbeat_age_s < STALE_AFTER_S
    live = holder.plan if holder is not None and is_fresh and read_sessions(connection) else None
    return tuple(
        RunSummary(
            plan=plan,
            run_id=run_id,
            state=state,
            reason=reason,
            started_at=started_at,
            ended_at=ended_at,
            stage=stage,
            resumed_at=resumed_at,
            by=by,
            is_live=state == "running" and plan == live,
        )
        for plan, run_id, state, reason, started_at, ended_at, stage, resumed_at, by in connection.execute(
            _RUNS
        )
    )


def read_run_approvals(connection: Connection, run_id: int) -> tuple[ApprovalRecord, ...]:
    """All approvals given to that run, oldest first, whether in force or not."""
    return to_records(ApprovalRecord, connection.execute(_APPROVALS, [run_id]))
