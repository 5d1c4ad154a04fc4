"""The journal: typed reads and writes of what was begun and how far it came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from online_migrate.errors import LeaseLost
from online_migrate.events import Event
from online_migrate.journal.fence import Fence
from online_migrate.journal.freezing import ACCEPT_PLAN, BEGIN_RUN, REOPEN_STEP
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
from online_migrate.journal.requests import IN_FORCE
from online_migrate.journal.states import RunState, StageState, StepState
from online_migrate.journal.texts import storable_params, to_json
from online_migrate.plan.model import Plan, Step
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.encoding import storable
from online_migrate.postgres.server_errors import translating_fence

Key = tuple[str, str, str]
"""stage, step, table"""


_PUT_REFERENCE: Final = (
    "INSERT INTO online_migrate.reference (run_id, name, value) VALUES (%(run)s, %(name)s, %(value)s)"
    " ON CONFLICT (run_id, name) DO UPDATE SET value = excluded.value"
)


class Journal:
    """Reads and writes on one connection.  A write is a transaction behind the fence; reads need none."""

    def __init__(self, connection: Connection, fence: Fence | None = None) -> None:
        self.connection = connection
        self._fence = fence

    def _write(self, query: str, params: Mapping[str, object] | None = None) -> list[tuple[object, ...]]:
        """One fenced transaction."""
        if self._fence is None:
            raise LeaseLost("a journal without a lease is read only")
        with translating_fence(), self.connection.transaction():
            self.connection.execute(self._fence.sql)
            cursor = self.connection.execute(query, storable_params(self.connection, params or {}))
            return list(cursor.fetchall()) if cursor.description else []

    # runs

    def read_run(self, plan: str) -> RunRecord | None:
        """The newest run of the plan."""
        rows = self.connection.execute(
            f"SELECT {columns(RunRecord)}"  # noqa: S608  # our own columns
            " FROM online_migrate.run WHERE plan = %s ORDER BY run_id DESC LIMIT 1",
            [plan],
        )
        return next(iter(to_records(RunRecord, rows)), None)

    def begin_run(self, plan: Plan, sets: Mapping[str, Iterable[str]], steps: Iterable[Step]) -> int:
        """Write the run with its frozen table sets, stages and steps, all or nothing; returns its id."""
        stages = [[s.name, s.phase.value] for s in plan.stages]
        rows = self._write(
            BEGIN_RUN,
            {
                "plan": plan.name,
                "fingerprint": plan.fingerprint(),
                "parts": to_json(plan.parts()),
                "tables": to_json([[name, t] for name, tables in sets.items() for t in tables]),
                "stages": to_json(stages),
                "steps": to_json([list(s.key) for s in steps]),
            },
        )
        return int(str(rows[0][0]))

    def accept_plan(
        self,
        run_id: int,
        plan: Plan,
        sets: Mapping[str, Iterable[str]],
        steps: Iterable[Step],
        *,
        event: Event | None = None,
    ) -> None:
        """Go on with a changed plan: its fingerprint, table sets, stages and steps in one transaction.

        What is there still keeps its state, what is new is open, all in the new order.  What the plan no
        longer has is forgotten unless it was done: done stays done, should it ever come back.  ``event`` is
        kept in the history: who accepted what.
        """
        self._write(
            ACCEPT_PLAN,
            {
                "run": run_id,
                "fingerprint": plan.fingerprint(),
                "parts": to_json(plan.parts()),
                "tables": to_json([[name, t] for name, tables in sets.items() for t in tables]),
                "stages": to_json([[s.name, s.phase.value] for s in plan.stages]),
                "steps": to_json([list(s.key) for s in steps]),
                "event": None if event is None else event.name,
                "fields": to_json({} if event is None else event.fields()),
            },
        )

    def set_run(self, run_id: int, state: RunState, reason: str = "") -> None:
        self._write(
            "UPDATE online_migrate.run SET state = %(s)s, reason = %(reason)s,"
            " ended_at = CASE WHEN %(s)s = 'running' THEN NULL ELSE clock_timestamp() END WHERE run_id ="
            " %(r)s",
            {"s": state, "reason": reason, "r": run_id},
        )

    def read_tables(self, run_id: int) -> dict[str, tuple[str, ...]]:
        """The frozen table sets."""
        sets: dict[str, tuple[str, ...]] = {}
        for name, table in self.connection.execute(
            "SELECT set_name, table_name FROM online_migrate.frozen_table WHERE run_id = %s ORDER BY"
            " position",
            [run_id],
        ):
            sets[name] = (*sets.get(name, ()), table)
        return sets

    def finish_run(self, run_id: int) -> bool:
        """Set the run's state to done, if the journal says so of each of its steps; was it?"""
        done = self._write(
            "UPDATE online_migrate.run SET state = %(s)s, reason = '', ended_at = clock_timestamp() WHERE"
            " run_id = %(r)s"
            " AND NOT EXISTS (SELECT FROM online_migrate.step WHERE run_id = %(r)s AND state <> %(s)s)"
            " RETURNING 1",
            {"s": RunState.DONE, "r": run_id},
        )
        return bool(done)

    # stages and steps

    def read_stages(self, run_id: int) -> tuple[StageRecord, ...]:
        rows = self.connection.execute(
            f"SELECT {columns(StageRecord)} FROM online_migrate.stage WHERE run_id = %s ORDER BY position",  # noqa: S608  # our own columns
            [run_id],
        )
        return to_records(StageRecord, rows)

    def read_stage(self, run_id: int, stage: str) -> StageRecord | None:
        rows = self.connection.execute(
            f"SELECT {columns(StageRecord)} FROM online_migrate.stage WHERE run_id = %s AND stage = %s",  # noqa: S608  # our own columns
            [run_id, stage],
        )
        return next(iter(to_records(StageRecord, rows)), None)

    def set_stage(self, run_id: int, stage: str, state: StageState, reason: str = "") -> None:
        self._write(
            """UPDATE online_migrate.stage SET state = %(s)s, reason = %(reason)s,
                      started_at = CASE WHEN %(s)s = 'running' THEN coalesce(started_at, clock_timestamp())
                        ELSE started_at END,
                      ended_at = CASE WHEN %(s)s = 'done' THEN clock_timestamp() END
                WHERE run_id = %(r)s AND stage = %(stage)s""",
            {"s": state, "reason": reason, "r": run_id, "stage": stage},
        )

    def finish_stage(self, run_id: int, stage: str) -> bool:
        """Set the stage's state to done, if the journal says so of each of its steps; was it?"""
        done = self._write(
            "UPDATE online_migrate.stage SET state = %(s)s, reason = '', ended_at = clock_timestamp()"
            " WHERE run_id = %(r)s AND stage = %(stage)s AND NOT EXISTS"
            " (SELECT FROM online_migrate.step WHERE run_id = %(r)s AND stage = %(stage)s AND state <>"
            " %(s)s) RETURNING 1",
            {"s": StageState.DONE, "r": run_id, "stage": stage},
        )
        return bool(done)

    def read_steps(self, run_id: int) -> tuple[StepRecord, ...]:
        rows = self.connection.execute(
            f"SELECT {columns(StepRecord)} FROM online_migrate.step WHERE run_id = %s ORDER BY position",  # noqa: S608  # our own columns
            [run_id],
        )
        return to_records(StepRecord, rows)

    def read_step(self, run_id: int, key: Key) -> StepRecord | None:
        rows = self.connection.execute(
            f"SELECT {columns(StepRecord)} FROM online_migrate.step"  # noqa: S608  # our own columns
            " WHERE run_id = %s AND stage = %s AND step = %s AND table_name = %s",
            [run_id, *key],
        )
        return next(iter(to_records(StepRecord, rows)), None)

    def set_step(
        self,
        run_id: int,
        key: Key,
        state: StepState,
        *,
        reason: str = "",
        rows_done: int | None = None,
    ) -> None:
        self._write(
            """UPDATE online_migrate.step SET state = %(s)s, reason = %(reason)s,
                      rows_done = coalesce(%(rows)s, rows_done),
                      started_at = CASE WHEN %(s)s = 'pending' THEN NULL
                        ELSE coalesce(started_at, clock_timestamp()) END,
                      ended_at = CASE WHEN %(s)s = 'done' THEN clock_timestamp() END
                WHERE run_id = %(r)s AND stage = %(stage)s AND step = %(step)s AND table_name = %(table)s""",
            {
                "s": state,
                "reason": reason,
                "rows": rows_done,
                "r": run_id,
                "stage": key[0],
                "step": key[1],
                "table": key[2],
            },
        )

    def reopen_step(self, run_id: int, key: Key, event: Event) -> None:
        """Reopen a finished step, without its cursor; a finished run becomes stopped.  Keeps ``event``."""
        self._write(
            REOPEN_STEP,
            {
                "run": run_id,
                "stage": key[0],
                "step": key[1],
                "table": key[2],
                "event": event.name,
                "fields": to_json(event.fields()),
            },
        )

    # backfills

    def read_cursor(self, run_id: int, key: Key) -> CursorRecord | None:
        rows = self.connection.execute(
            f"SELECT {columns(CursorRecord)} FROM online_migrate.cursor"  # noqa: S608  # our own columns
            " WHERE run_id = %s AND stage = %s AND step = %s AND table_name = %s",
            [run_id, *key],
        )
        return next(iter(to_records(CursorRecord, rows)), None)

    def read_cursor_age_s(self, run_id: int, key: Key) -> float:
        """Seconds since the cursor moved, by the server's clock; 0 if there is none."""
        row = self.connection.execute(
            "SELECT extract(epoch FROM clock_timestamp() - moved_at)::float8 FROM online_migrate.cursor"
            " WHERE run_id = %s AND stage = %s AND step = %s AND table_name = %s",
            [run_id, *key],
        ).fetchone()
        return 0.0 if row is None else max(float(row[0]), 0.0)

    def write_cursor(self, run_id: int, cursor: CursorRecord) -> None:
        """Begin a pass: the cursor at its start, rows counted so far kept."""
        self._write(
            """INSERT INTO online_migrate.cursor (run_id, stage, step, table_name, column_name, value,
              pass_name, relfilenode, pages_total,
                                                  chunk_pages, stripes, chunk, stripe, slice, rows_done,
                                                    batches, moved_at)
               VALUES (%(run)s, %(stage)s, %(step)s, %(table)s, %(column)s, %(value)s, %(pass)s, %(node)s,
                 %(pages)s,
                       %(chunk_pages)s, %(stripes)s, %(chunk)s, %(stripe)s, %(slice)s, %(rows)s, %(batches)s,
                         clock_timestamp())
               ON CONFLICT (run_id, stage, step, table_name) DO UPDATE
               SET column_name = excluded.column_name, value = excluded.value,
                   pass_name = excluded.pass_name, relfilenode = excluded.relfilenode, pages_total =
                     excluded.pages_total,
                   chunk_pages = excluded.chunk_pages, stripes = excluded.stripes, chunk = excluded.chunk,
                     stripe = excluded.stripe,
                   slice = excluded.slice, rows_done = excluded.rows_done, batches = excluded.batches,
                     moved_at = clock_timestamp()""",
            {
                "run": run_id,
                "stage": cursor.stage,
                "step": cursor.step,
                "table": cursor.table,
                "column": cursor.column,
                "value": cursor.value,
                "pass": cursor.pass_name,
                "node": cursor.relfilenode,
                "pages": cursor.pages_total,
                "chunk_pages": cursor.chunk_pages,
                "stripes": cursor.stripes,
                "chunk": cursor.chunk,
                "stripe": cursor.stripe,
                "slice": cursor.slice,
                "rows": cursor.rows_done,
                "batches": cursor.batches,
            },
        )

    # references, approvals, history

    def read_references(self, run_id: int) -> dict[str, str]:
        """What ``<master.id>`` and the like stand for."""
        return dict(
            self.connection.execute(
                "SELECT name, value FROM online_migrate.reference WHERE run_id = %s", [run_id]
            ).fetchall()
        )

    def write_reference(self, run_id: int, name: str, value: str) -> None:
        self._write(_PUT_REFERENCE, {"run": run_id, "name": name, "value": value})

    def read_approvals(self, plan: str, since: datetime | None = None) -> dict[str, ApprovalRecord]:
        """The newest approval of each stage that is in force."""
        rows = self.connection.execute(
            f"SELECT DISTINCT ON (stage) {columns(ApprovalRecord)}"  # noqa: S608  # our own columns
            " FROM online_migrate.approval WHERE plan = %s"
            f" AND {IN_FORCE} AND (%s::timestamptz IS NULL OR approved_at >= %s)"
            " ORDER BY stage, approval_id DESC",
            [plan, since, since],
        )
        return {record.stage: record for record in to_records(ApprovalRecord, rows)}

    def pass_gate(self, run_id: int, plan: str, stage: str) -> ApprovalRecord | None:
        """Set the stage's state to running if an approval of this run is in force; which one.

        A revocation either comes before, or finds that the stage has begun.
        """
        if self._fence is None:
            raise LeaseLost("a journal without a lease is read only")
        with translating_fence(), self.connection.transaction():
            self.connection.execute(self._fence.sql)
            row = self.connection.execute(
                "SELECT r.started_at FROM online_migrate.stage s JOIN online_migrate.run r USING (run_id)"
                " WHERE s.run_id = %s AND s.stage = %s FOR UPDATE OF s",
                [run_id, stage],
            ).fetchone()
            found = self.read_approvals(plan, None if row is None else row[0]).get(stage)
            if found is not None:
                self.connection.execute(
                    "UPDATE online_migrate.stage SET state = %s, reason = '', ended_at = NULL,"
                    " started_at = coalesce(started_at, clock_timestamp()) WHERE run_id = %s AND stage = %s",
                    [StageState.RUNNING, run_id, stage],
                )
        return found

    def append_history(self, run_id: int, event: Event) -> None:
        """Keep an event.  Unfenced: what happened, happened, even to a runner that
        has just been fenced off.
        """
        fields = {k: v for k, v in event.fields().items() if k not in ("stage", "step", "table")}
        kept = storable(self.connection, to_json(fields))
        self.connection.execute(
            "INSERT INTO online_migrate.history (run_id, event, stage, step, table_name, fields) VALUES (%s,"
            " %s, %s, %s, %s, %s)",
            [run_id, event.name, event.stage, event.step, event.table, kept],
        )

    def read_history(self, run_id: int, events: Iterable[str] | None = None) -> tuple[HistoryRecord, ...]:
        rows = self.connection.execute(
            f"SELECT {columns(HistoryRecord)} FROM online_migrate.history"  # noqa: S608  # our own columns
            " WHERE run_id = %s AND (%s::text[] IS NULL OR event = ANY (%s)) ORDER BY history_id",
            [run_id, *([None if events is None else list(events)] * 2)],
        )
        return to_records(HistoryRecord, rows)


def put_reference(connection: Connection, run_id: int, name: str, value: str) -> None:
    """Write a reference in the caller's transaction, which has asserted the fence and writes the row that it
    names.
    """
    connection.execute(_PUT_REFERENCE, {"run": run_id, "name": name, "value": value})


def read_closed_gate(connection: Connection) -> str:
    """The stage at whose gate the newest run waits; empty if it waits at none."""
    row = connection.execute(
        "SELECT stage FROM online_migrate.stage WHERE state = %s ORDER BY run_id DESC, position LIMIT 1",
        [StageState.WAITING],
    ).fetchone()
    return "" if row is None else str(row[0])
