"""SQL that freezes a plan in the journal: its table sets, stages and steps, for a new run or for one that
continues.

Each is one statement: its parts see the journal as it was before, so that none works on what another has
written.
"""

from __future__ import annotations

from typing import Final

BEGIN_RUN: Final = """
WITH run AS (
    INSERT INTO online_migrate.run (plan, fingerprint, parts, state)
    VALUES (%(plan)s, %(fingerprint)s, %(parts)s, 'running') RETURNING run_id),
tables AS (
    INSERT INTO online_migrate.frozen_table (run_id, set_name, position, table_name)
    SELECT run_id, e ->> 0, n, e ->> 1 FROM run, jsonb_array_elements(%(tables)s::jsonb) WITH ORDINALITY x
      (e, n)),
stages AS (
    INSERT INTO online_migrate.stage (run_id, position, stage, phase)
    SELECT run_id, n, e ->> 0, e ->> 1 FROM run, jsonb_array_elements(%(stages)s::jsonb) WITH ORDINALITY x
      (e, n)),
steps AS (
    INSERT INTO online_migrate.step (run_id, position, stage, step, table_name)
    SELECT run_id, n, e ->> 0, e ->> 1, e ->> 2
      FROM run, jsonb_array_elements(%(steps)s::jsonb) WITH ORDINALITY x (e, n))
SELECT run_id FROM run"""

ACCEPT_PLAN: Final = """
WITH wanted AS (SELECT n, e ->> 0 AS stage, e ->> 1 AS step, e ->> 2 AS table_name
                  FROM jsonb_array_elements(%(steps)s::jsonb) WITH ORDINALITY x (e, n)),
     wanted_stage AS (SELECT n, e ->> 0 AS stage, e ->> 1 AS phase
       FROM jsonb_array_elements(%(stages)s::jsonb) WITH ORDINALITY x (e, n)),
     wanted_table AS (SELECT n, e ->> 0 AS set_name, e ->> 1 AS table_name
                        FROM jsonb_array_elements(%(tables)s::jsonb) WITH ORDINALITY x (e, n)),
     run AS (UPDATE online_migrate.run SET fingerprint = %(fingerprint)s, parts = %(parts)s
       WHERE run_id = %(run)s),
     accepted AS (
         INSERT INTO online_migrate.history (run_id, event, fields)
         SELECT %(run)s, %(event)s::text, %(fields)s::jsonb WHERE %(event)s::text IS NOT NULL),
     tables_gone AS (
         DELETE FROM online_migrate.frozen_table t WHERE run_id = %(run)s
            AND NOT EXISTS (SELECT FROM wanted_table w
              WHERE (w.set_name, w.table_name) = (t.set_name, t.table_name))),
     tables AS (
         INSERT INTO online_migrate.frozen_table (run_id, set_name, position, table_name)
         SELECT %(run)s, set_name, n, table_name FROM wanted_table
             ON CONFLICT (run_id, set_name, table_name) DO UPDATE SET position = excluded.position),
     gone AS (
         SELECT stage, step, table_name, state FROM online_migrate.step s WHERE run_id = %(run)s
            AND NOT EXISTS (SELECT FROM wanted w WHERE (w.stage, w.step, w.table_name) = (s.stage, s.step,
              s.table_name))),
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
         UPDATE online_migrate.stage SET state = 'done', reason = 'no longer in the plan', position =
           position + 1000000
          WHERE run_id = %(run)s AND stage IN (SELECT stage FROM kept EXCEPT SELECT stage FROM wanted_stage)
            AND position < 1000000),
     steps_over AS (
         UPDATE online_migrate.step s SET position = position + 1000000 FROM gone g
           WHERE s.run_id = %(run)s AND g.state = 'done'
            AND (g.stage, g.step, g.table_name) = (s.stage, s.step, s.table_name) AND s.position < 1000000),
     stages AS (
         INSERT INTO online_migrate.stage (run_id, position, stage, phase) SELECT %(run)s, n, stage, phase
           FROM wanted_stage
             ON CONFLICT (run_id, stage) DO UPDATE SET position = excluded.position, phase = excluded.phase)
INSERT INTO online_migrate.step (run_id, position, stage, step, table_name) SELECT %(run)s, n, stage, step,
  table_name FROM wanted
    ON CONFLICT (run_id, stage, step, table_name) DO UPDATE SET position = excluded.position"""

REOPEN_STEP: Final = """
WITH cursor_gone AS (
         DELETE FROM online_migrate.cursor
          WHERE (run_id, stage, step, table_name) = (%(run)s, %(stage)s, %(step)s, %(table)s)),
     reopened AS (
         UPDATE online_migrate.step SET state = 'pending', reason = '', started_at = NULL, ended_at = NULL
          WHERE (run_id, stage, step, table_name) = (%(run)s, %(stage)s, %(step)s, %(table)s)
            AND state = 'done'),
     run AS (
         UPDATE online_migrate.run SET state = 'stopped', reason = 'a finished step was reopened'
          WHERE run_id = %(run)s AND state = 'done')
INSERT INTO online_migrate.history (run_id, event, stage, step, table_name, fields)
VALUES (%(run)s, %(event)s, %(stage)s, %(step)s, %(table)s, %(fields)s::jsonb)"""
