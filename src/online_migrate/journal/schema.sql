-- The journal of online-migrate: what was begun, how far it came, who may write.  Version 1.
-- Every table has a primary key, so that logical replication of the database does not stop at our first row.
CREATE SCHEMA online_migrate;

CREATE TABLE online_migrate.version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  integer NOT NULL
);

-- The fence: who may write.  Raised at every take-over; holder is random, so that a number that is given out twice
-- (failover to a standby that missed the last commits) does not let the old holder write.
CREATE TABLE online_migrate.epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    bigint NOT NULL,
    holder   uuid NOT NULL
);

-- Another row than the fence's, so that a heartbeat never waits for a batch.
CREATE TABLE online_migrate.heartbeat (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder   uuid NOT NULL,
    who      text NOT NULL,
    plan     text NOT NULL,
    since    timestamptz NOT NULL,
    beat_at  timestamptz NOT NULL
) WITH (fillfactor = 10, vacuum_truncate = off);

CREATE TABLE online_migrate.run (
    run_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan        text NOT NULL,
    fingerprint text NOT NULL,
    parts       jsonb NOT NULL,
    state       text NOT NULL CHECK (state IN ('running', 'stopped', 'waiting', 'failed', 'done')),
    reason      text NOT NULL DEFAULT '',
    started_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE UNIQUE INDEX one_open_run_per_plan ON online_migrate.run (plan) WHERE state <> 'done';

-- Table sets as the first run found them.
CREATE TABLE online_migrate.frozen_table (
    run_id     integer REFERENCES online_migrate.run,
    set_name   text,
    position   integer NOT NULL,
    table_name text,
    PRIMARY KEY (run_id, set_name, table_name)
);

CREATE TABLE online_migrate.stage (
    run_id     integer REFERENCES online_migrate.run,
    stage      text,
    phase      text NOT NULL,
    position   integer NOT NULL,
    state      text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'waiting', 'running', 'done', 'failed')),
    reason     text NOT NULL DEFAULT '',
    started_at timestamptz,
    ended_at   timestamptz,
    PRIMARY KEY (run_id, stage)
);

CREATE TABLE online_migrate.step (
    run_id     integer REFERENCES online_migrate.run,
    stage      text,
    step       text,
    table_name text,
    position   integer NOT NULL,
    state      text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'failed')),
    reason     text NOT NULL DEFAULT '',
    started_at timestamptz,
    ended_at   timestamptz,
    rows_done  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, stage, step, table_name)
);

-- How far a backfill has come.  Moves only in the transaction of its batch, by compare-and-set.
-- vacuum_truncate: an autovacuum that cuts the file takes ACCESS EXCLUSIVE, and a batch waits for locks for 50 ms at most.
CREATE TABLE online_migrate.cursor (
    run_id      integer,
    stage       text,
    step        text,
    table_name  text,
    column_name text NOT NULL,
    value       text NOT NULL,
    pass_name   text NOT NULL,
    relfilenode bigint NOT NULL,
    pages_total bigint NOT NULL,
    chunk_pages bigint NOT NULL,
    stripes     integer NOT NULL,
    chunk       bigint NOT NULL,
    stripe      integer NOT NULL,
    slice       bigint NOT NULL,
    rows_done   bigint NOT NULL,
    batches     bigint NOT NULL,
    moved_at    timestamptz NOT NULL,
    PRIMARY KEY (run_id, stage, step, table_name),
    FOREIGN KEY (run_id, stage, step, table_name) REFERENCES online_migrate.step
) WITH (fillfactor = 10, vacuum_truncate = off);

-- What <master.id> stands for.
CREATE TABLE online_migrate.reference (
    run_id  integer REFERENCES online_migrate.run,
    name    text,
    value   text NOT NULL,
    PRIMARY KEY (run_id, name)
);

CREATE TABLE online_migrate.approval (
    approval_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan        text NOT NULL,
    stage       text NOT NULL,
    approved_by text NOT NULL,
    note        text NOT NULL DEFAULT '',
    approved_at timestamptz NOT NULL DEFAULT now()
);

-- What an operator asks of a running step, from any host: see control.py.
CREATE TABLE online_migrate.request (
    request_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan       text NOT NULL,
    kind       text NOT NULL,
    by_whom    text NOT NULL,
    asked_at   timestamptz NOT NULL DEFAULT now(),
    taken_at   timestamptz
);

-- Events worth keeping: lock windows with their holds and waits, pauses with their reasons, batches summed by time.
CREATE TABLE online_migrate.history (
    history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id     integer REFERENCES online_migrate.run,
    at         timestamptz NOT NULL DEFAULT now(),
    event      text NOT NULL,
    stage      text NOT NULL DEFAULT '',
    step       text NOT NULL DEFAULT '',
    table_name text NOT NULL DEFAULT '',
    fields     jsonb NOT NULL DEFAULT '{}'
);

-- Called in every transaction that writes: no row, no write.  FOR SHARE, because FOR KEY SHARE would not stop a take-over's UPDATE.
CREATE FUNCTION online_migrate.fence(my_epoch bigint, my_holder uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog AS $$
BEGIN
    PERFORM 1 FROM online_migrate.epoch e WHERE e.epoch = my_epoch AND e.holder = my_holder FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another runner took over: epoch % is no longer ours', my_epoch USING ERRCODE = 'OM006';
    END IF;
END $$;

-- Moves a cursor in its batch's transaction; raises where it is not where the runner left it.  Returns the transaction's id.
CREATE FUNCTION online_migrate.advance(my_run integer, my_stage text, my_step text, my_table text,
                                       was_chunk bigint, was_stripe integer, was_slice bigint,
                                       new_chunk bigint, new_stripe integer, new_slice bigint, new_rows bigint)
RETURNS xid8 LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE online_migrate.cursor c
       SET chunk = new_chunk, stripe = new_stripe, slice = new_slice, rows_done = c.rows_done + new_rows,
           batches = c.batches + 1, moved_at = now()
     WHERE c.run_id = my_run AND c.stage = my_stage AND c.step = my_step AND c.table_name = my_table
       AND c.chunk = was_chunk AND c.stripe = was_stripe AND c.slice = was_slice;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the cursor of % is not where this runner left it', my_table USING ERRCODE = 'OM008';
    END IF;
    RETURN pg_current_xact_id();
END $$;

INSERT INTO online_migrate.version (version) VALUES (1);
INSERT INTO online_migrate.epoch (epoch, holder) VALUES (0, gen_random_uuid());
