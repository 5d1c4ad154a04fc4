"""create_index: built beside the application, never left invalid, and never in place of another's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from online_migrate.errors import Conflict, LockNotAcquired, PlanError, VerificationFailed
from online_migrate.operations.contract.base import State
from tests.operations.beside import await_true, is_waiting_for_snapshots, old_snapshot
from tests.operations.conftest import OpenSite
from tests.operations.site import connect, plan_of

INDEX = "{table: transactions, name: idx_<table>_bot_id, columns: [bot_id]}"
PLAN = plan_of(f"create_index: {INDEX}")
UNIQUE = plan_of("create_index: {table: gifts, name: one_a_type, columns: [user_id, type], unique: true}")
COLUMN = "ALTER TABLE transactions ADD COLUMN bot_id integer DEFAULT 1"
GIFTS = """
    CREATE TABLE gifts (user_id integer, type text);
    INSERT INTO gifts VALUES (1, 'gift'), (1, 'gift'), (1, 'gift'), (2, 'gift'), (NULL, 'gift'), (NULL,
      'gift')"""
INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"


def test_duplicates_are_told_at_check(site_of: OpenSite) -> None:
    """With examples, before anything is built."""
    site = site_of(UNIQUE)
    site.sql(GIFTS)
    (finding,) = site.stops()
    assert finding.code == "duplicates"
    assert "(1, gift) 3 times" in finding.fact


def test_duplicates_that_came_later_leave_no_invalid_index(site_of: OpenSite) -> None:
    """The build fails with examples and takes its leftover away, so that no write is slowed by it."""
    site = site_of(UNIQUE)
    site.sql(GIFTS)
    with pytest.raises(VerificationFailed, match=r"\(1, gift\) 3 times"):
        site.execute()
    assert site.one(INVALID) == 0
    assert site.state() is State.ABSENT


@pytest.mark.parametrize(
    ("setup", "column", "error"),
    [
        pytest.param(
            "ALTER TABLE users ADD long text;"
            " UPDATE users SET long = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)",
            "long",
            psycopg.errors.ProgramLimitExceeded,
            id="54000",
        ),
        pytest.param(
            "CREATE TYPE odd AS (a point); ALTER TABLE users ADD odd odd;"
            " UPDATE users SET odd = ROW(point(1, 1))::odd",
            "odd",
            psycopg.errors.UndefinedFunction,
            id="42883",
        ),
    ],
)
def test_a_build_that_fails_in_any_way_leaves_no_invalid_index(
    site_of: OpenSite, setup: str, column: str, error: type[psycopg.Error]
) -> None:
    """The server's error ends the step; what the build left is dropped, so that no write is slowed by it."""
    site = site_of(plan_of(f"create_index: {{table: users, name: i, columns: [{column}]}}"))
    site.sql(setup)
    with pytest.raises(error):
        site.execute()
    assert site.one(INVALID) == 0
    assert site.state() is State.ABSENT


def test_an_invalid_index_that_cannot_be_dropped_is_named(site_of: OpenSite, shop: str) -> None:
    """Another session's lock on the table keeps the drop waiting: the error says what is left, and how to
    drop it.
    """
    head = "locks: {long_statement: 1s}"
    site = site_of(plan_of("create_index: {table: users, name: i, columns: [telegram_id]}", head=head))
    with connect(shop) as other:
        other.execute("BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE")
        with pytest.raises(LockNotAcquired, match="the invalid index i could not be dropped") as caught:
            site.execute()
    assert "DROP INDEX CONCURRENTLY" in caught.value.remedy
    site.execute()
    assert site.one(INVALID) == 0
    assert site.state() is State.DONE


def test_a_unique_that_holds_keeps_the_search_short(
    site_of: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A valid unique on fewer columns may be corrupt: its duplicates are found in the table. A search that
    takes longer than its short limit is no finding, since the unique should keep them out.
    """
    site = site_of(plan_of("create_index: {table: gifts, name: u, columns: [user_id, type], unique: true}"))
    ready = "UPDATE pg_index SET indisready = {0}, indisvalid = {0} WHERE indexrelid = 'by_user'::regclass"
    site.sql(
        "CREATE TABLE gifts (user_id integer, type text); CREATE UNIQUE INDEX by_user ON gifts (user_id)"
    )
    assert site.stops() == []
    site.sql(ready.format(False))
    site.sql("INSERT INTO gifts SELECT i / 2, 'gift' FROM generate_series(2, 200000) i")
    site.sql(ready.format(True))
    assert [finding.code for finding in site.stops()] == ["duplicates"]
    monkeypatch.setattr("online_migrate.operations.shared.duplicates.KEPT_OUT_TIMEOUT_S", 0.001)
    assert site.preflight() == []


def test_an_index_that_another_session_builds_is_left_alone(site_of: OpenSite, shop: str) -> None:
    """Held up by an old snapshot it is invalid, as a leftover is; but it is being built: a conflict that
    names the session.
    """
    site = site_of(PLAN)
    site.sql(COLUMN)
    with ThreadPoolExecutor(1) as pool, connect(shop) as builder:
        with old_snapshot(shop):
            build = pool.submit(
                builder.execute, "CREATE INDEX CONCURRENTLY idx_transactions_bot_id ON transactions (bot_id)"
            )
            await_true(lambda: is_waiting_for_snapshots(site.app, builder.info.backend_pid))
            assert site.state() is State.PARTIAL
            with pytest.raises(Conflict, match=f"pid {builder.info.backend_pid}"):
                site.execute()
        build.result()
    assert site.state() is State.DONE


def test_a_build_that_takes_too_long_is_cancelled_and_cleaned_up(site_of: OpenSite, shop: str) -> None:
    """After the plan's limit: exit 4, who held it up is named, nothing is left."""
    site = site_of(plan_of(f"create_index: {INDEX}", head="locks: {long_statement: 300ms}"))
    site.sql(COLUMN)
    with old_snapshot(shop) as other, pytest.raises(LockNotAcquired, match=f"pid {other.info.backend_pid}"):
        site.execute()
    assert site.state() is State.ABSENT
    assert site.one(INVALID) == 0


@pytest.mark.parametrize("unique", [False, True])
def test_a_unique_above_the_backfill_of_its_column_is_refused(site_of: OpenSite, unique: bool) -> None:
    """It would make each update a key update, which child inserts and the batches wait for; a plain one only
    costs.
    """
    index = f"{{table: users, name: i, columns: [telegram_id, bot_id], unique: {str(unique).lower()}}}"
    text = (
        "plan: harness\nstages:\n"
        f"  - stage: uniques\n    steps:\n      - create_index: {index}\n"
        "  - stage: filling\n    steps:\n      - backfill: {table: users, column: bot_id, value: 1}\n"
    )
    site = site_of(text)
    site.sql("ALTER TABLE users ADD COLUMN bot_id integer")
    found = site.contradictions()
    assert [f.code for f in found] == (["unique_above_backfill"] if unique else [])
    assert all("move this step below backfill bot_id" in f.remedy for f in found)


def test_a_name_that_postgresql_would_cut_is_refused(site_of: OpenSite) -> None:
    """Cut at 63 bytes it would not be found again; the bytes are counted, not the letters."""
    fits, long = "ü" * 31, "ü" * 32
    assert site_of(PLAN.replace("idx_<table>_bot_id", fits).replace("bot_id", "status")).stops() == []
    (finding,) = site_of(
        PLAN.replace("idx_<table>_bot_id", long).replace("plan: harness", "plan: other")
    ).stops()
    assert finding.code == "name_too_long"


def test_a_partitioned_table_is_taken(site_of: OpenSite) -> None:
    """Its partitions are built one by one, concurrently, which the root itself cannot be."""
    site = site_of(plan_of("create_index: {table: logs, name: idx_logs_at, columns: [at]}"))
    site.sql("CREATE TABLE logs (at date) PARTITION BY RANGE (at)")
    assert [f.code for f in site.stops()] == []


@pytest.mark.parametrize("name", ["Order", 'say "it"'])
def test_names_are_taken_as_they_are(site_of: OpenSite, name: str) -> None:
    """Capitals, blanks, quotes: the index is built, and found again by its definition."""
    site = site_of(plan_of(f"create_index: {{table: users, name: '{name} index', columns: ['{name}']}}"))
    site.app.execute(
        psycopg.sql.SQL("ALTER TABLE users ADD COLUMN {} integer").format(psycopg.sql.Identifier(name))
    )
    site.execute()
    assert site.state() is State.DONE


def test_check_looks_for_duplicates_for_a_few_seconds_only(
    site_of: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sort of a whole table is not to hold its snapshot before every run: what was not seen is said, and
    stops nothing.
    """
    monkeypatch.setattr("online_migrate.operations.shared.duplicates.LOOK_TIMEOUT_S", 0.001)
    site = site_of(plan_of("create_index: {table: slow, name: idx_slow, columns: [v], unique: true}"))
    site.sql(
        "CREATE TABLE slow AS SELECT 1 AS v FROM generate_series(1, 300000); ALTER TABLE slow ADD id serial"
    )
    (finding,) = site.preflight()
    assert (finding.severity.value, finding.code) == ("warn", "duplicates_unknown")
    assert site.sessions.work.execute("SHOW statement_timeout").fetchone() == ("0",)


IN_FULL = (
    pytest.param(
        "keys: [lower(email), telegram_id DESC NULLS LAST]", "lower(email), telegram_id DESC", id="keys"
    ),
    pytest.param("columns: [telegram_id], where: balance_kopeks > 0", "(telegram_id)", id="where"),
    pytest.param("columns: [telegram_id], include: [id]", "(telegram_id) INCLUDE (status)", id="include"),
    pytest.param("keys: ['language text_pattern_ops']", "(language)", id="operator class"),
    pytest.param("""keys: ['language COLLATE "C"']""", "(language)", id="collation"),
    pytest.param("columns: [telegram_id], method: hash", "(telegram_id)", id="method"),
)


@pytest.mark.parametrize(("params", "other"), IN_FULL)
def test_an_index_in_full_is_built_and_recognised(site_of: OpenSite, params: str, other: str) -> None:
    """What PostgreSQL makes of the plan's text is compared with what exists: the same is adopted, another is
    a conflict.
    """
    site = site_of(plan_of(f"create_index: {{table: users, name: i, {params}}}"))
    site.sql("ALTER TABLE users ADD IF NOT EXISTS email text")
    assert site.stops() == []
    site.execute()
    assert site.state() is State.DONE
    assert site.verify() == []
    other = other if other.startswith("(") else f"({other})"
    site.sql(f"DROP INDEX i; CREATE INDEX i ON users {other}")
    assert site.state() is State.CONFLICT
    assert [f.code for f in site.stops()] == ["index_conflict"]


@pytest.mark.parametrize(
    "params",
    [
        "columns: [a], keys: [a]",
        "unique: true",
        "keys: ['a) INCLUDE (b']",
        "keys: ['a, b']",
        "keys: ['a -- b']",
        "columns: [a], where: 'a > 0); DROP TABLE users; SELECT (1'",
        "columns: [a], where: 'a >'",
        "columns: [a], nulls_not_distinct: true",
    ],
)
def test_text_that_is_no_index_is_a_mistake_of_the_plan(site_of: OpenSite, params: str) -> None:
    """PostgreSQL's grammar reads it before any server does."""
    with pytest.raises(PlanError, match=r"plan\.yaml|harness"):
        site_of(plan_of(f"create_index: {{table: users, name: i, {params}}}"))
