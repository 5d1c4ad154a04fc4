"""Each numbered fact of PostgreSQL on which lock windows and long statements rest, as a test on the server at
hand.

The numbers are those of our list of facts.  5 is in tests/postgres/test_blockers.py (it needs a slow
autovacuum); 8 and the part of 7 that is about COMMIT are in test_standby.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import psycopg
import pytest
from psycopg import errors, sql

from online_migrate.journal.advisory import ADVISORY_KEY
from online_migrate.journal.lease import hold_shared, read_sessions
from online_migrate.journal.schema import ensure_schema
from online_migrate.postgres.connection import Connector
from tests.locks.beside import (
    READ,
    WRITE,
    WRITE_PARENT,
    Application,
    Site,
    await_true,
    blocker,
    in_thread,
    is_waiting,
    pause,
)

BUILD = "CREATE INDEX CONCURRENTLY {} ON public.child (v)"


@pytest.fixture
def other(site: Site) -> Iterator[psycopg.Connection]:
    """A plain session without any setting of ours."""
    with psycopg.connect(site.dsn, autocommit=True, application_name="other") as connection:
        yield connection


def held_by(site: Site, pid: int) -> dict[str, str]:
    """Relation → its strongest mode, of a session that is in the middle of a transaction."""
    rows = site.watch.execute(
        "SELECT c.relname::text, mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        " WHERE pid = %s AND locktype = 'relation' AND granted",
        [pid],
    ).fetchall()
    return {str(name): str(mode) for name, mode in rows if mode != "AccessShareLock" and "pg_" not in name}


EXCLUSIVE = {"child": "AccessExclusiveLock"}
KEYED = (
    "ALTER TABLE public.child ADD CONSTRAINT fk FOREIGN KEY (parent_id) REFERENCES public.parent NOT VALID"
)
CHECKED = "ALTER TABLE public.child ADD CONSTRAINT c CHECK (v IS NOT NULL) NOT VALID"


@pytest.mark.parametrize(
    ("before", "statement", "locks"),
    [
        ("", "ALTER TABLE public.child ADD COLUMN x int", EXCLUSIVE),
        ("", "ALTER TABLE public.child ADD COLUMN x int DEFAULT 7", EXCLUSIVE),
        ("", "ALTER TABLE public.child ADD COLUMN x int, ALTER x SET DEFAULT 7", EXCLUSIVE),
        ("", KEYED, {"child": "ShareRowExclusiveLock", "parent": "ShareRowExclusiveLock"}),
        ("", "CREATE TABLE t (p int REFERENCES public.parent)", {"parent": "ShareRowExclusiveLock"}),
        (KEYED, ("ALTER TABLE public.child VALIDATE CONSTRAINT"
            " fk"), {"child": "ShareUpdateExclusiveLock", "parent": "RowShareLock"}),
        (KEYED, ("ALTER TABLE public.child DROP CONSTRAINT"
            " fk"), {**EXCLUSIVE, "parent": "AccessExclusiveLock"}),
        ("", CHECKED, EXCLUSIVE),
        (CHECKED, "ALTER TABLE public.child VALIDATE CONSTRAINT c", {"child": "ShareUpdateExclusiveLock"}),
        ("CREATE INDEX i ON public.child (v)", "DROP INDEX i", {**EXCLUSIVE, "i": "AccessExclusiveLock"}),
        ("", "ALTER TABLE public.child DROP CONSTRAINT IF EXISTS nothing", EXCLUSIVE),
    ],
)  # fmt: skip
def test_the_table_of_locks(
    site: Site, other: psycopg.Connection, before: str, statement: str, locks: dict[str, str]
) -> None:
    """What each statement locks, as the table of facts has it and as operations declare it."""
    if before:
        other.execute(before.encode())
    other.execute("BEGIN")
    other.execute(statement.encode())
    held = held_by(site, other.info.backend_pid)
    other.execute("ROLLBACK")
    strong = {n: m for n, m in held.items() if n in locks}
    assert strong == locks


def test_add_column_and_default_in_one_statement(site: Site, other: psycopg.Connection) -> None:
    """Old rows stay NULL, new ones get the default, and no row is written: one window covers both."""
    before = other.execute("SELECT pg_relation_filenode('child'), pg_relation_size('child')").fetchone()
    other.execute("ALTER TABLE public.child ADD COLUMN x int, ALTER x SET DEFAULT 7")
    other.execute("INSERT INTO public.child (id, parent_id) VALUES (0, 1)")
    assert other.execute(
        "SELECT count(*) FILTER (WHERE x IS NULL) > 0, count(x) FROM public.child"
    ).fetchone() == (
        True,
        1,
    )
    assert (
        other.execute("SELECT pg_relation_filenode('child'), pg_relation_size('child')").fetchone() == before
    )


def test_a_constant_default_is_no_rewrite(other: psycopg.Connection) -> None:
    """Kept as a missing value: the file stays, every old row reads the default."""
    before = other.execute("SELECT pg_relation_filenode('child')").fetchone()
    other.execute("ALTER TABLE public.child ADD COLUMN x int DEFAULT 7")
    assert other.execute("SELECT pg_relation_filenode('child')").fetchone() == before
    assert other.execute("SELECT min(x), max(x) FROM public.child").fetchone() == (7, 7)


def scans(connection: psycopg.Connection, statement: str) -> bool:
    """Did the statement read the table's rows?  The server says so at DEBUG1, from 12 on."""
    heard: list[str] = []
    connection.add_notice_handler(lambda d: heard.append(d.message_primary or ""))
    connection.execute("SET client_min_messages = debug1")
    connection.execute(statement.encode())
    connection.execute("RESET client_min_messages")
    return any(
        "verifying table" in h or "rewriting table" in h or "validating foreign key" in h for h in heard
    )


def test_inline_references_with_a_default_scans(other: psycopg.Connection) -> None:
    """ADD COLUMN … DEFAULT … REFERENCES validates under ACCESS EXCLUSIVE: never in a window."""
    assert scans(other, "ALTER TABLE public.child ADD COLUMN x int DEFAULT 1 REFERENCES public.parent")
    assert not scans(other, "ALTER TABLE public.child ADD COLUMN y int")


def test_set_not_null_needs_its_check_and_a_statement_of_its_own(other: psycopg.Connection) -> None:
    """With a valid CHECK it does not scan; with DROP CONSTRAINT in the same ALTER TABLE it does."""
    assert scans(other, "ALTER TABLE public.child ALTER v SET NOT NULL, ALTER w SET NOT NULL") is False, (
        "they are already"
    )
    other.execute("ALTER TABLE public.child ALTER v DROP NOT NULL, ALTER w DROP NOT NULL")
    assert scans(other, "ALTER TABLE public.child ALTER w SET NOT NULL")
    other.execute("ALTER TABLE public.child ADD CONSTRAINT c CHECK (v IS NOT NULL)")
    assert scans(other, "ALTER TABLE public.child ALTER v SET NOT NULL, DROP CONSTRAINT c")
    other.execute(
        "ALTER TABLE public.child ALTER v DROP NOT NULL; ALTER TABLE public.child ADD CONSTRAINT c CHECK (v"
        " IS NOT NULL)"
    )
    assert not scans(other, "ALTER TABLE public.child ALTER v SET NOT NULL")


def test_a_check_not_valid_binds_every_later_update(other: psycopg.Connection) -> None:
    """An old row that is still NULL can no longer be updated: add it only when none is left."""
    other.execute(
        "ALTER TABLE public.child ADD COLUMN x int; ALTER TABLE public.child ADD CONSTRAINT c CHECK (x IS"
        " NOT NULL) NOT"
        " VALID"
    )
    with pytest.raises(errors.CheckViolation):
        other.execute("UPDATE public.child SET v = 1 WHERE id = 1")


def test_partitioned_roots(other: psycopg.Connection) -> None:
    """No concurrent build on the root; a foreign key NOT VALID on it from 18 on only."""
    other.execute("CREATE TABLE log (id int, at int) PARTITION BY RANGE (at)")
    with pytest.raises(errors.FeatureNotSupported):
        other.execute("CREATE INDEX CONCURRENTLY ON log (id)")
    key = "ALTER TABLE log ADD FOREIGN KEY (id) REFERENCES public.parent NOT VALID"
    if other.info.server_version >= 180000:
        other.execute(key)
    else:
        with pytest.raises(errors.WrongObjectType):
            other.execute(key)


def test_1_lock_timeout_counts_the_wait_for_snapshots(site: Site, other: psycopg.Connection) -> None:
    """It leaves an invalid index; a plain retry says 'already exists', and IF NOT EXISTS succeeds over the
    invalid one.
    """
    with blocker(site.dsn, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM public.parent"):
        other.execute("SET lock_timeout = '200ms'")
        with pytest.raises(errors.LockNotAvailable):
            other.execute(BUILD.format("i").encode())
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass"
    assert other.execute(valid.encode()).fetchone() == (False,)
    with pytest.raises(errors.DuplicateTable):
        other.execute(BUILD.format("i").encode())
    other.execute(BUILD.format("IF NOT EXISTS i").encode())
    assert other.execute(valid.encode()).fetchone() == (False,)


def test_2_a_blocking_advisory_lock_holds_a_snapshot(site: Site, other: psycopg.Connection) -> None:
    """One's own waiting pg_advisory_lock() would hang one's own build; pg_try_advisory_lock in autocommit
    holds nothing.
    """
    with Connector(dsn=site.dsn).open("holder") as holder:
        holder.execute("SELECT pg_advisory_lock(7)")
        with in_thread(lambda: other.execute("SELECT pg_advisory_lock(7)")):
            await_true(lambda: is_waiting(site.watch, other.info.backend_pid))
            site.work.execute("SET lock_timeout = '300ms'")
            with pytest.raises(errors.LockNotAvailable):
                site.work.execute(BUILD.format("i"))
            holder.execute("SELECT pg_advisory_unlock(7)")
        site.work.execute("DROP INDEX public.i")
        holder.execute("SELECT pg_try_advisory_lock(7)")
        site.work.execute(BUILD.format("i"))


def test_3_steps_on_different_tables_meet_through_snapshots(site: Site, other: psycopg.Connection) -> None:
    """A build on one table waits for a statement on another that holds a snapshot, as a VALIDATE does; beside
    a plain build it does not wait.
    """
    with in_thread(lambda: other.execute("SELECT count(*), pg_sleep(1.2) FROM public.parent")):
        pause(0.2)
        began = monotonic()
        site.work.execute(BUILD.format("i"))
        assert monotonic() - began > 0.5
    other.execute("INSERT INTO public.parent SELECT i, 'x' FROM generate_series(11, 200000) i")
    with in_thread(lambda: other.execute("CREATE INDEX CONCURRENTLY p ON public.parent (note, id)")):
        await_true(
            lambda: (
                site.watch.execute("SELECT count(*) FROM pg_stat_progress_create_index").fetchone() == (1,)
            )
        )
        site.work.execute("SET lock_timeout = '5s'")
        site.work.execute(BUILD.format("j"))


def let_go(session: psycopg.Connection, *, after_s: float) -> None:
    pause(after_s)
    session.rollback()


def test_4_lock_timeout_is_per_lock(site: Site, other: psycopg.Connection) -> None:
    """A statement that takes two locks may wait twice as long as its lock_timeout."""
    first, second = psycopg.connect(site.dsn), psycopg.connect(site.dsn)
    with first, second:
        first.execute("LOCK TABLE public.child")
        second.execute("LOCK TABLE public.parent")
        other.execute("SET lock_timeout = '600ms'")
        with in_thread(lambda: let_go(first, after_s=0.4)):
            began = monotonic()
            with pytest.raises(errors.LockNotAvailable):
                other.execute("BEGIN; LOCK TABLE public.child, parent")
            assert monotonic() - began > 0.9
        other.execute("ROLLBACK")


def cross(site: Site, ours: psycopg.Connection, wait: str) -> tuple[str, str]:
    """We hold child and ask for parent, the application holds a row of parent and asks for child: who fails,
    by SQLSTATE.
    """
    states = {"ours": "", "app": ""}
    with psycopg.connect(site.dsn) as app:
        app.execute(WRITE_PARENT.encode())
        ours.execute(f"BEGIN; SET LOCAL lock_timeout = '{wait}'; LOCK TABLE public.child".encode())

        def application() -> None:
            try:
                app.execute(WRITE.encode())
            except psycopg.Error as error:
                states["app"] = str(error.sqlstate)
                app.rollback()

        with in_thread(application):
            await_true(lambda: is_waiting(site.watch, app.info.backend_pid))
            pause(0.4)  # its second of deadlock_timeout began clearly before ours
            try:
                ours.execute("LOCK TABLE public.parent")
            except psycopg.Error as error:
                states["ours"] = str(error.sqlstate)
            ours.execute("ROLLBACK")
        app.rollback()
    return states["ours"], states["app"]


def test_6_two_strong_locks(site: Site, other: psycopg.Connection) -> None:
    """Waiting past deadlock_timeout for the second made the application the victim; a short wait costs us
    55P03, it nothing.
    """
    assert cross(site, other, "3s") == ("", "40P01")
    assert cross(site, other, "250ms") == ("55P03", "")


def test_7_statement_timeout_does_not_run_between_statements(site: Site, other: psycopg.Connection) -> None:
    """A runner that is stopped after its ALTER holds the lock on; idle_in_transaction_session_timeout ends
    it.
    """
    other.execute("BEGIN; SET LOCAL statement_timeout = '100ms'; LOCK TABLE public.child")
    with pytest.raises(errors.QueryCanceled):
        site.work.execute(f"SET statement_timeout = '400ms'; {READ}".encode())
    other.execute("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
    began = monotonic()
    site.work.execute(f"SET statement_timeout = '2s'; {READ}".encode())
    assert monotonic() - began < 1.0
    with pytest.raises(errors.IdleInTransactionSessionTimeout):
        other.execute("SELECT 1")


def test_9_a_prepared_star_fails_after_add_column(site: Site, other: psycopg.Connection) -> None:
    """0A000 until it is prepared again; statements that name their columns still work; trigger and function
    bodies with * break.
    """
    other.execute(
        "CREATE TABLE copy (LIKE child);"
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO copy SELECT NEW.*;"
        " RETURN NEW; END';"
        "CREATE TRIGGER keep AFTER UPDATE ON public.child FOR EACH ROW EXECUTE FUNCTION keep();"
        "CREATE FUNCTION all_of() RETURNS TABLE (id int, parent_id int, v int, w int) LANGUAGE plpgsql"
        " AS 'BEGIN RETURN QUERY SELECT * FROM public.child LIMIT 1; END'"
    )
    other.execute(
        "PREPARE star AS SELECT * FROM public.child LIMIT 1; PREPARE named AS SELECT id, v FROM public.child"
        " LIMIT 1"
    )
    other.execute(
        "EXECUTE star; EXECUTE named; UPDATE public.child SET v = 1 WHERE id = 1; SELECT * FROM all_of()"
    )
    site.watch.execute("ALTER TABLE public.child ADD COLUMN extra int")
    for _ in range(2):
        with pytest.raises(errors.FeatureNotSupported):
            other.execute("EXECUTE star")
    other.execute("EXECUTE named")
    other.execute("DEALLOCATE star; PREPARE star AS SELECT * FROM public.child LIMIT 1; EXECUTE star")
    with psycopg.connect(site.dsn, autocommit=True) as fresh:
        with pytest.raises(errors.SyntaxError):
            fresh.execute("UPDATE public.child SET v = 1 WHERE id = 1")
        with pytest.raises(errors.DatatypeMismatch):
            fresh.execute("SELECT * FROM all_of()")


def test_10_for_share_stops_an_update_and_for_key_share_does_not(
    site: Site, other: psycopg.Connection
) -> None:
    """The fence asks FOR SHARE, and the heartbeat is another row."""
    other.execute("SET lock_timeout = '100ms'")
    for strength, stops in (("KEY SHARE", False), ("SHARE", True)):
        with blocker(site.dsn, f"SELECT 1 FROM public.parent WHERE id = 3 FOR {strength}"):
            if stops:
                with pytest.raises(errors.LockNotAvailable):
                    other.execute(WRITE_PARENT.encode())
            else:
                other.execute(WRITE_PARENT.encode())


def test_11_a_role_without_the_right_sees_nobody(site: Site) -> None:
    """NULL for others' xact_start and backend_xmin, no text: look-first would see no
    blocker, so check stops.
    """
    with psycopg.connect(site.dsn, autocommit=True) as admin:
        admin.execute("DO $$ BEGIN CREATE ROLE om_blind LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    with blocker(site.dsn) as other, psycopg.connect(site.dsn, user="om_blind", autocommit=True) as blind:
        row = blind.execute(
            "SELECT xact_start, backend_xmin, query FROM pg_stat_activity WHERE pid = %s",
            [other.info.backend_pid],
        ).fetchone()
    assert row == (None, None, "<insufficient privilege>")


def test_12_names_are_cut_and_advisory_locks_are_seen(site: Site, other: psycopg.Connection) -> None:
    """application_name is for people; our sessions are found by their shared advisory lock, concurrent builds
    included.
    """
    name = "n" * 100
    other.execute(sql.SQL("SET application_name = {}").format(sql.Literal(name)))
    assert other.execute("SHOW application_name").fetchone() == ("n" * 63,)
    hold_shared(site.work)
    with blocker(site.dsn, "UPDATE public.child SET v = 1 WHERE id = 1"):
        with in_thread(lambda: site.work.execute(BUILD.format("i"))) as failed:
            await_true(lambda: is_waiting(site.watch, site.work.info.backend_pid))
            assert [pid for pid, _ in read_sessions(site.watch)] == [site.work.info.backend_pid]
            assert site.watch.execute("SELECT pg_try_advisory_lock(%s, %s)", ADVISORY_KEY).fetchone() == (
                False,
            )
            site.watch.execute("SELECT pg_terminate_backend(%s, 5000)", [site.work.info.backend_pid])
        assert isinstance(failed[0], psycopg.OperationalError)
    assert site.watch.execute("SELECT pg_try_advisory_lock(%s, %s)", ADVISORY_KEY).fetchone() == (True,)


def test_13_pg_xact_status_says_what_became_of_a_commit(other: psycopg.Connection) -> None:
    """Committed, aborted, or still in progress, by the transaction's id."""
    for end, status in (("COMMIT", "committed"), ("ROLLBACK", "aborted")):
        other.execute("BEGIN")
        row = other.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        assert other.execute("SELECT pg_xact_status(%s::xid8)", row).fetchone() == ("in progress",)
        other.execute(end.encode())
        assert other.execute("SELECT pg_xact_status(%s::xid8)", row).fetchone() == (status,)


def test_14_the_same_epoch_with_another_holder_is_refused(site: Site) -> None:
    """After a failover that lost the last commits a number can be given out twice: the random holder tells
    them apart.
    """
    ensure_schema(site.work)
    site.work.execute("UPDATE online_migrate.epoch SET epoch = 7, holder = gen_random_uuid()")
    row = site.work.execute("SELECT holder FROM online_migrate.epoch").fetchone()
    assert row is not None
    site.work.execute("SELECT online_migrate.fence(7, %s)", row)
    with pytest.raises(psycopg.Error) as caught:
        site.work.execute("SELECT online_migrate.fence(7, gen_random_uuid())")
    assert caught.value.sqlstate == "OM006"


def test_15_a_null_does_not_keep_duplicates_out(other: psycopg.Connection) -> None:
    """A unique over a column that can be NULL lets the same key in twice: the old unique stays until there is
    no NULL.
    """
    other.execute("CREATE TABLE t (tenant int, code text); CREATE UNIQUE INDEX ON t (tenant, code)")
    other.execute("INSERT INTO t VALUES (NULL, 'a'), (NULL, 'a')")
    with pytest.raises(errors.UniqueViolation):
        other.execute("INSERT INTO t VALUES (1, 'a'), (1, 'a')")


def test_16_session_replication_role_switches_foreign_keys_off(other: psycopg.Connection) -> None:
    """An orphan goes in: no session of ours ever sets it."""
    other.execute("ALTER TABLE public.child ADD FOREIGN KEY (parent_id) REFERENCES public.parent")
    other.execute(
        "SET session_replication_role = replica; INSERT INTO public.child (id, parent_id) VALUES (0, 4711)"
    )


def test_17_timeouts_of_a_role_do_not_reach_our_sessions(site: Site) -> None:
    """idle_session_timeout would end an idle lease connection (57P05): every session of ours sets its own."""
    with psycopg.connect(site.dsn, autocommit=True) as admin:
        name = admin.info.dbname
        for setting in ("idle_session_timeout = '200ms'", "statement_timeout = '50ms'"):
            admin.execute(sql.SQL("ALTER DATABASE {} SET {}").format(sql.Identifier(name), sql.SQL(setting)))
    with Connector(dsn=site.dsn).open("lease") as ours, psycopg.connect(site.dsn, autocommit=True) as plain:
        pause(0.6)
        ours.execute("SELECT pg_sleep(0.1)")
        with pytest.raises(psycopg.OperationalError):
            plain.execute("SELECT 1")


def test_18_published_tables_need_a_replica_identity(site: Site, other: psycopg.Connection) -> None:
    """Where every table is published, an UPDATE of one without a key fails: every journal table has a primary
    key.
    """
    ensure_schema(site.work)
    keyless = site.work.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'online_migrate'::regnamespace AND"
        " c.relkind = 'r'"
        " AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"
    ).fetchall()
    assert keyless == []
    other.execute(
        "CREATE TABLE keyless (id int); INSERT INTO keyless VALUES (1); CREATE PUBLICATION everything FOR"
        " ALL TABLES"
    )
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        other.execute("UPDATE keyless SET id = 2")


def test_19_repeatable_read_gets_40001_from_our_batches(site: Site, other: psycopg.Connection) -> None:
    """A row that a batch has updated cannot be updated by a snapshot that is older:
    check names such roles.
    """
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM public.child LIMIT 1")
    site.work.execute("UPDATE public.child SET w = 1 WHERE id = 8")
    with pytest.raises(errors.SerializationFailure):
        other.execute(WRITE.encode())
    other.execute("ROLLBACK")


def test_nothing_of_ours_holds_a_snapshot_between_statements(site: Site) -> None:
    """Beside our own concurrent build no other session of ours may hold one: they are all in autocommit."""
    with Application(site.dsn):
        site.work.execute("SELECT 1")
        row = site.watch.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'online-migrate%%'"
            " AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row == (0,)
