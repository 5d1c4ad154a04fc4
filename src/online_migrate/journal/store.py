"""The journal: typed reads and writes of what was begun and how far it came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

import psycopg
from psycopg import sql

from online_migrate.errors import JournalVersion, LeaseLost, PreflightFailed
from online_migrate.events import Event
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
from online_migrate.plan.model import Plan, Step
from online_migrate.postgres import sqlstate
from online_migrate.postgres.connection import Connection

__all__ = [
    "VERSION",
    "ApprovalRecord",
    "CursorRecord",
    "Fence",
    "HistoryRecord",
    "Journal",
    "RunRecord",
    "StageRecord",
    "StepRecord",
    "approve",
    "ensure_readable",
    "ensure_schema",
    "read_version",
]

VERSION = 1
"""of schema.sql"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Who we are: without this epoch and this holder in force nothing of ours may be written."""

    epoch: int
    holder: str

    @property
    def sql(self) -> sql.Composed:
        """The statement that raises where another runner took over."""
        return sql.SQL("SELECT online_migrate.fence({}, {}::uuid)").format(
            sql.Literal(self.epoch), sql.Literal(self.holder)
        )


def read_version(connection: Connection) -> int | None:
    """The version of the journal that is there, or None."""
    row = connection.execute("SELECT to_regclass('online_migrate.version') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute("SELECT version FROM online_migrate.version").fetchone()
    return None if row is None else int(row[0])


def ensure_readable(connection: Connection) -> bool:
    """Is there a journal?  Raises :class:`JournalVersion` where it is of another version."""
    version = read_version(connection)
    if version is not None and version != VERSION:
        raise JournalVersion(
            f"the journal in schema online_migrate is of version {version}, this program writes version {VERSION}",
            remedy="run the version of online-migrate that made it"
            if version > VERSION
            else "finish the run with the older program first",
        )
    return version is not None


def ensure_schema(connection: Connection) -> None:
    """Make the journal where there is none."""
    if ensure_readable(connection):
        return
    text = resources.files("online_migrate.journal").joinpath("schema.sql").read_text(encoding="utf-8")
    try:
        with connection.transaction():
            connection.execute(text)
    except (psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation):
        if not ensure_readable(connection):
            raise PreflightFailed(
                "there is a schema online_migrate that is not our journal",
                remedy="rename or drop that schema, then run again",
            ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightFailed(
            f"no right to create the journal's schema: {error.diag.message_primary}",
            remedy=f"GRANT CREATE ON DATABASE {connection.info.dbname} TO {connection.info.user}",
        ) from error


_ACCEPT_PLAN = """
WITH wanted AS (SELECT n, e ->> 0 AS stage, e ->> 1 AS step, e ->> 2 AS table_name
                  FROM jsonb_array_elements(%(steps)s::jsonb) WITH ORDINALITY x (e, n)),
     wanted_stage AS (SELECT n, e ->> 0 AS stage, e ->> 1 AS phase FROM jsonb_array_elements(%(stages)s::jsonb) WITH ORDINALITY x (e, n)),
     wanted_table AS (SELECT n, e ->> 0 AS set_name, e ->> 1 AS table_name
                        FROM jsonb_array_elements(%(tables)s::jsonb) WITH ORDINALITY x (e, n)),
     run AS (UPDATE online_migrate.run SET fingerprint = %(fingerprint)s, parts = %(parts)s WHERE run_id = %(run)s),
     tables_gone AS (
         DELETE FROM online_migrate.frozen_table t WHERE run_id = %(run)s
            AND NOT EXISTS (SELECT FROM wanted_table w WHERE (w.set_name, w.table_name) = (t.set_name, t.table_name))),
     tables AS (
         INSERT INTO online_migrate.frozen_table (run_id, set_name, position, table_name)
         SELECT %(run)s, set_name, n, table_name FROM wanted_table
             ON CONFLICT (run_id, set_name, table_name) DO UPDATE SET position = excluded.position),
     gone AS (
         SELECT stage, step, table_name, state FROM online_migrate.step s WHERE run_id = %(run)s
            AND NOT EXISTS (SELECT FROM wanted w WHERE (w.stage, w.step, w.table_name) = (s.stage, s.step, s.table_name))),
     kept AS (SELECT stage FROM wanted_stage UNION SELECT stage FROM gone WHERE state = 'done'),
     cursors_gone AS (
         DELETE FROM online_migrate.cursor c USING gone g WHERE c.run_id = %(run)s AND g.state <> 'done'
            AND (g.stage, g.step, g.table_name) = (c.stage, c.step, c.table_name)),
     steps_gone AS (
         DELETE FROM online_migrate.step s USING gone g WHERE s.run_id = %(run)s AND g.state <> 'done'
            AND (g.stage, g.step, g.table_name) = (s.stage, s.step, s.table_name)),
     stages_gone AS (
         DELETE FROM online_migrate.stage t WHERE run_id = %(run)s AND stage NOT IN (SELECT stage FROM kept)),
     stages_over AS (
         UPDATE online_migrate.stage SET state = 'done', reason = 'no longer in the plan', position = position + 1000000
          WHERE run_id = %(run)s AND stage IN (SELECT stage FROM kept EXCEPT SELECT stage FROM wanted_stage)
            AND position < 1000000),
     steps_over AS (
         UPDATE online_migrate.step s SET position = position + 1000000 FROM gone g WHERE s.run_id = %(run)s AND g.state = 'done'
            AND (g.stage, g.step, g.table_name) = (s.stage, s.step, s.table_name) AND s.position < 1000000),
     stages AS (
         INSERT INTO online_migrate.stage (run_id, position, stage, phase) SELECT %(run)s, n, stage, phase FROM wanted_stage
             ON CONFLICT (run_id, stage) DO UPDATE SET position = excluded.position, phase = excluded.phase)
INSERT INTO online_migrate.step (run_id, position, stage, step, table_name) SELECT %(run)s, n, stage, step, table_name FROM wanted
    ON CONFLICT (run_id, stage, step, table_name) DO UPDATE SET position = excluded.position"""
"""One statement: its parts see the journal as it was before, so none works on what another has written."""


class Journal:
    """Reads and writes on one connection.  Writes carry the fence; reads need none."""

    def __init__(self, connection: Connection, fence: Fence | None = None) -> None:
        self.connection = connection
        self._fence = fence

    def _write(self, query: str, params: Mapping[str, object] | None = None) -> list[tuple[object, ...]]:
        """One fenced transaction."""
        if self._fence is None:
            raise LeaseLost("a journal without a lease is read only")
        try:
            with self.connection.transaction():
                self.connection.execute(self._fence.sql)
                cursor = self.connection.execute(query, params)
                return list(cursor.fetchall()) if cursor.description else []
        except psycopg.Error as error:
            if error.sqlstate == sqlstate.FENCE_LOST:
                raise LeaseLost(str(error.diag.message_primary)) from error
            raise

    # runs

    def read_run(self, plan: str) -> RunRecord | None:
        """The newest run of the plan."""
        rows = self.connection.execute(
            f"SELECT {columns(RunRecord)} FROM online_migrate.run WHERE plan = %s ORDER BY run_id DESC LIMIT 1",  # noqa: S608  # our own columns
            [plan],
        )
        return next(iter(to_records(RunRecord, rows)), None)

    def begin_run(self, plan: Plan, sets: Mapping[str, Iterable[str]], steps: Iterable[Step]) -> int:
        """Write the run with its frozen table sets, stages and steps, all or nothing; returns its id."""
        stages = [[s.name, s.phase.value] for s in plan.stages]
        rows = self._write(
            """
            WITH run AS (
                INSERT INTO online_migrate.run (plan, fingerprint, parts, state)
                VALUES (%(plan)s, %(fingerprint)s, %(parts)s, 'running') RETURNING run_id),
            tables AS (
                INSERT INTO online_migrate.frozen_table (run_id, set_name, position, table_name)
                SELECT run_id, e ->> 0, n, e ->> 1 FROM run, jsonb_array_elements(%(tables)s::jsonb) WITH ORDINALITY x (e, n)),
            stages AS (
                INSERT INTO online_migrate.stage (run_id, position, stage, phase)
                SELECT run_id, n, e ->> 0, e ->> 1 FROM run, jsonb_array_elements(%(stages)s::jsonb) WITH ORDINALITY x (e, n)),
            steps AS (
                INSERT INTO online_migrate.step (run_id, position, stage, step, table_name)
                SELECT run_id, n, e ->> 0, e ->> 1, e ->> 2 FROM run, jsonb_array_elements(%(steps)s::jsonb) WITH ORDINALITY x (e, n))
            SELECT run_id FROM run""",
            {
                "plan": plan.name,
                "fingerprint": plan.fingerprint(),
                "parts": json.dumps(plan.parts()),
                "tables": json.dumps([[name, t] for name, tables in sets.items() for t in tables]),
                "stages": json.dumps(stages),
                "steps": json.dumps([list(s.key) for s in steps]),
            },
        )
        return int(str(rows[0][0]))

    def accept_plan(
        self, run_id: int, plan: Plan, sets: Mapping[str, Iterable[str]], steps: Iterable[Step]
    ) -> None:
        """Go on with a changed plan: its fingerprint, table sets, stages and steps in one transaction.

        What is there still keeps its state, what is new is open, all in the new order.  What the plan no longer has is
        forgotten unless it was done: done stays done, should it ever come back.
        """
        self._write(
            _ACCEPT_PLAN,
            {
                "run": run_id,
                "fingerprint": plan.fingerprint(),
                "parts": json.dumps(plan.parts()),
                "tables": json.dumps([[name, t] for name, tables in sets.items() for t in tables]),
                "stages": json.dumps([[s.name, s.phase.value] for s in plan.stages]),
                "steps": json.dumps([list(s.key) for s in steps]),
            },
        )

    def set_run(self, run_id: int, state: str, reason: str = "") -> None:
        self._write(
            "UPDATE online_migrate.run SET state = %(s)s, reason = %(why)s,"
            " ended_at = CASE WHEN %(s)s = 'running' THEN NULL ELSE clock_timestamp() END WHERE run_id = %(r)s",
            {"s": state, "why": reason, "r": run_id},
        )

    def read_tables(self, run_id: int) -> dict[str, tuple[str, ...]]:
        """The frozen table sets."""
        sets: dict[str, tuple[str, ...]] = {}
        for name, table in self.connection.execute(
            "SELECT set_name, table_name FROM online_migrate.frozen_table WHERE run_id = %s ORDER BY position",
            [run_id],
        ):
            sets[name] = (*sets.get(name, ()), table)
        return sets

    # stages and steps

    def read_stages(self, run_id: int) -> tuple[StageRecord, ...]:
        rows = self.connection.execute(
            f"SELECT {columns(StageRecord)} FROM online_migrate.stage WHERE run_id = %s ORDER BY position",  # noqa: S608  # our own columns
            [run_id],
        )
        return to_records(StageRecord, rows)

    def set_stage(self, run_id: int, stage: str, state: str, reason: str = "") -> None:
        self._write(
            """UPDATE online_migrate.stage SET state = %(s)s, reason = %(why)s,
                      started_at = CASE WHEN %(s)s = 'running' THEN coalesce(started_at, clock_timestamp()) ELSE started_at END,
                      ended_at = CASE WHEN %(s)s = 'done' THEN clock_timestamp() END
                WHERE run_id = %(r)s AND stage = %(stage)s""",
            {"s": state, "why": reason, "r": run_id, "stage": stage},
        )

    def read_steps(self, run_id: int) -> tuple[StepRecord, ...]:
        rows = self.connection.execute(
            f"SELECT {columns(StepRecord)} FROM online_migrate.step WHERE run_id = %s ORDER BY position",  # noqa: S608  # our own columns
            [run_id],
        )
        return to_records(StepRecord, rows)

    def set_step(
        self,
        run_id: int,
        key: tuple[str, str, str],
        state: str,
        *,
        reason: str = "",
        rows_done: int | None = None,
    ) -> None:
        self._write(
            """UPDATE online_migrate.step SET state = %(s)s, reason = %(why)s, rows_done = coalesce(%(rows)s, rows_done),
                      started_at = CASE WHEN %(s)s = 'pending' THEN NULL ELSE coalesce(started_at, clock_timestamp()) END,
                      ended_at = CASE WHEN %(s)s = 'done' THEN clock_timestamp() END
                WHERE run_id = %(r)s AND stage = %(stage)s AND step = %(step)s AND table_name = %(table)s""",
            {
                "s": state,
                "why": reason,
                "rows": rows_done,
                "r": run_id,
                "stage": key[0],
                "step": key[1],
                "table": key[2],
            },
        )

    # backfills

    def read_cursor(self, run_id: int, key: tuple[str, str, str]) -> CursorRecord | None:
        rows = self.connection.execute(
            f"SELECT {columns(CursorRecord)} FROM online_migrate.cursor"  # noqa: S608  # our own columns
            " WHERE run_id = %s AND stage = %s AND step = %s AND table_name = %s",
            [run_id, *key],
        )
        return next(iter(to_records(CursorRecord, rows)), None)

    def read_cursors(self, run_id: int) -> tuple[CursorRecord, ...]:
        rows = self.connection.execute(
            f"SELECT {columns(CursorRecord)} FROM online_migrate.cursor WHERE run_id = %s",  # noqa: S608  # our own columns
            [run_id],
        )
        return to_records(CursorRecord, rows)

    def write_cursor(self, run_id: int, cursor: CursorRecord) -> None:
        """Begin a pass: the cursor at its start, rows counted so far kept."""
        self._write(
            """INSERT INTO online_migrate.cursor (run_id, stage, step, table_name, column_name, value, pass_name, relfilenode, pages_total,
                                                  chunk_pages, stripes, chunk, stripe, slice, rows_done, batches, moved_at)
               VALUES (%(run)s, %(stage)s, %(step)s, %(table)s, %(column)s, %(value)s, %(pass)s, %(node)s, %(pages)s,
                       %(chunk_pages)s, %(stripes)s, %(chunk)s, %(stripe)s, %(slice)s, %(rows)s, %(batches)s, clock_timestamp())
               ON CONFLICT (run_id, stage, step, table_name) DO UPDATE
               SET column_name = excluded.column_name, value = excluded.value,
                   pass_name = excluded.pass_name, relfilenode = excluded.relfilenode, pages_total = excluded.pages_total,
                   chunk_pages = excluded.chunk_pages, stripes = excluded.stripes, chunk = excluded.chunk, stripe = excluded.stripe,
                   slice = excluded.slice, rows_done = excluded.rows_done, batches = excluded.batches, moved_at = clock_timestamp()""",
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
        self._write(
            "INSERT INTO online_migrate.reference (run_id, name, value) VALUES (%(r)s, %(n)s, %(v)s)"
            " ON CONFLICT (run_id, name) DO UPDATE SET value = excluded.value",
            {"r": run_id, "n": name, "v": value},
        )

    def read_approvals(self, plan: str, since: datetime | None = None) -> dict[str, ApprovalRecord]:
        """The newest approval of each stage."""
        rows = self.connection.execute(
            f"SELECT DISTINCT ON (stage) {columns(ApprovalRecord)} FROM online_migrate.approval"  # noqa: S608  # our own columns
            " WHERE plan = %s AND (%s::timestamptz IS NULL OR approved_at >= %s) ORDER BY stage, approval_id DESC",
            [plan, since, since],
        )
        return {record.stage: record for record in to_records(ApprovalRecord, rows)}

    def append_history(self, run_id: int, event: Event) -> None:
        """Keep an event.  Unfenced: what happened, happened, even to a runner that has just been fenced off."""
        fields = {k: v for k, v in event.fields().items() if k not in ("stage", "step", "table")}
        self.connection.execute(
            "INSERT INTO online_migrate.history (run_id, event, stage, step, table_name, fields) VALUES (%s, %s, %s, %s, %s, %s)",
            [run_id, event.name, event.stage, event.step, event.table, json.dumps(fields)],
        )

    def read_history(self, run_id: int, events: Iterable[str] | None = None) -> tuple[HistoryRecord, ...]:
        rows = self.connection.execute(
            f"SELECT {columns(HistoryRecord)} FROM online_migrate.history"  # noqa: S608  # our own columns
            " WHERE run_id = %s AND (%s::text[] IS NULL OR event = ANY (%s)) ORDER BY history_id",
            [run_id, *([None if events is None else list(events)] * 2)],
        )
        return to_records(HistoryRecord, rows)


def approve(connection: Connection, *, plan: str, stage: str, approved_by: str, note: str = "") -> None:
    """Open a gate; needs no lease, so that anyone with the right to write the journal can."""
    connection.execute(
        "INSERT INTO online_migrate.approval (plan, stage, approved_by, note) VALUES (%s, %s, %s, %s)",
        [plan, stage, approved_by, note],
    )
