"""set_not_null: a check is there only while no row is NULL, and never stays in the application's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from online_migrate.backfill.context import BackfillContext
from online_migrate.backfill.worker import Backfill
from online_migrate.clock import Signal
from online_migrate.errors import Interrupted, LeaseLost, LockNotAcquired, VerificationFailed
from online_migrate.events import LateRows
from online_migrate.findings import (
    Severity,
)
from online_migrate.journal.steering import Steering
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.operations import set_not_null
from online_migrate.operations.contract.base import (
    Context,
    State,
    Statement,
)
from online_migrate.operations.set_not_null import ROUNDS, SetNotNull, SetNotNullParams, check_name
from online_migrate.operations.shared import owed_check, steps
from tests.operations.cases import EMPTY_COLUMN
from tests.operations.conftest import OpenSite
from tests.operations.site import Site, connect, plan_of, replaced

PLAN = plan_of(
    "backfill: {table: transactions, column: bot_id, value: 1}",
    "set_not_null: {table: transactions, column: bot_id}",
    stage="pace: {duty: 100%}",
)
FORGET = "UPDATE transactions SET bot_id = NULL WHERE id = (SELECT max(id) FROM transactions)"
AN_OLD_ROW = "UPDATE transactions SET amount_kopeks = 0 WHERE bot_id IS NULL RETURNING id"
CHECKS = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'transactions'::regclass AND contype = 'c'"


class BesideAForgetfulWriter(SetNotNull):
    """The same operation, with a session that writes NULL at the worst moment: after the proof, before the
    check.
    """

    def __init__(self, forget: Callable[[], object], *, times: int) -> None:
        self._forget = forget
        self._times = times

    def _prove(self, context: Context, params: SetNotNullParams) -> None:
        super()._prove(context, params)
        if self._times:
            self._times -= 1
            self._forget()


@pytest.fixture
def site(site_of: OpenSite) -> Site:
    """Backfilled, and proven."""
    site: Site = site_of(PLAN)
    site.sql(EMPTY_COLUMN)
    site.execute(site.step("backfill"))
    return site


def execute(site: Site, *, times: int) -> None:
    operation = BesideAForgetfulWriter(lambda: site.sql(FORGET), times=times)
    params = site.step().spec.params
    assert isinstance(params, SetNotNullParams)
    operation.execute(site.context(), params)


def test_a_null_after_the_proof_is_mended(site: Site) -> None:
    """The check goes at once, the backfill's own sweep gives the row its value, and
    the second round ends it.
    """
    execute(site, times=1)
    assert site.state() is State.DONE
    assert site.one("SELECT bot_id FROM transactions ORDER BY id DESC LIMIT 1") == 1
    assert [late.rows for late in site.heard.of(LateRows)] == [1], "each row is told once"
    assert site.one(CHECKS) == 0


def test_late_rows_are_counted_once_and_for_the_stage_that_found_them(site: Site) -> None:
    """What the alert says of them: how many there are at least, not that there is one, and none twice."""
    site.sql("UPDATE transactions SET bot_id = NULL WHERE id IN (SELECT id FROM transactions LIMIT 3)")
    site.execute()
    sink = MetricsSink(plan="shop")
    for event in site.heard.events:
        sink.emit(event)
    labels = {"plan": "shop", "stage": site.step().stage}
    late = sink.registry.get_sample_value("online_migrate_late_rows_after_proof_total", labels)
    assert late == 3


def test_somebody_who_keeps_writing_nulls_is_not_fought(site: Site) -> None:
    """Exit 5, and the check was dropped: the row that is still NULL can be updated, so the application fails
    nowhere.
    """
    with pytest.raises(VerificationFailed, match="transactions: NULLs keep being written into bot_id"):
        execute(site, times=ROUNDS)
    assert site.one(CHECKS) == 0
    assert len(site.sql(AN_OLD_ROW)) == 1
    assert site.state() is State.ABSENT
    site.execute()
    assert site.state() is State.DONE


def test_a_column_that_nobody_fills_is_refused_with_a_row(site_of: OpenSite) -> None:
    """Without a backfill of the column in the plan a NULL is the operator's: named by its place, and nothing
    is changed.
    """
    site = site_of(plan_of("set_not_null: {table: transactions, column: bot_id}"))
    site.sql(EMPTY_COLUMN)
    before = site.schema()
    with pytest.raises(VerificationFailed, match=r"rows without bot_id, e.g. at ctid \(0,1\)"):
        site.execute()
    assert site.schema() == before


def test_a_check_left_over_nulls_is_taken_away(site: Site) -> None:
    """A crash after the check, and a row that came before it: VALIDATE finds it, the check is dropped, the
    sweep fixes the row, the step ends.
    """
    site.sql(
        FORGET + ";ALTER TABLE transactions ADD CONSTRAINT online_migrate_bot_id_not_null"
        " CHECK (bot_id IS NOT NULL) NOT VALID"
    )
    assert site.state() is State.PARTIAL
    site.execute()
    assert site.state() is State.DONE
    assert site.verify() == []


def test_nobody_scans_under_the_strongest_lock(site: Site) -> None:
    """SET NOT NULL after the valid check reads no row: the server says so at debug level."""
    said: list[str] = []
    site.sessions.work.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    site.sessions.work.execute("SET client_min_messages = debug1")
    site.execute()
    assert any("existing constraints on column" in s and "are sufficient" in s for s in said)


def test_a_nullable_column_is_seen(site: Site) -> None:
    """Another session drops NOT NULL: verify says so."""
    site.execute()
    site.sql("ALTER TABLE transactions ALTER bot_id DROP NOT NULL")
    (finding,) = site.verify()
    assert finding.fact.startswith("transactions.bot_id is not NOT NULL")


# The check is owed: whatever ends the step before it is valid

LEFT = (
    FORGET + ";ALTER TABLE transactions ADD CONSTRAINT online_migrate_bot_id_not_null"
    " CHECK (bot_id IS NOT NULL) NOT VALID"
)
SHORT = "locks: {lock_wait: 500ms, exposure: 1s}"
IN_THE_WAY = "LOCK TABLE transactions IN ROW EXCLUSIVE MODE"


@pytest.fixture
def at_validate(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen at the first VALIDATE."""

    def arrange(happens: Callable[[], object]) -> None:
        real, left = steps.run_long, [happens]

        def run_long(context: Context, statement: Statement) -> None:
            if left:
                left.pop()()
            real(context, statement)

        monkeypatch.setattr("online_migrate.operations.set_not_null.run_long", run_long)

    return arrange


def raising(error: BaseException) -> Callable[[], object]:
    def happens() -> None:
        raise error

    return happens


@pytest.mark.parametrize(
    "error",
    [
        LockNotAcquired("VALIDATE: cancelled, it took longer than 1 s"),
        Interrupted("VALIDATE: cancelled: SIGINT"),
        KeyboardInterrupt(),
        psycopg.errors.DiskFull("no space"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_whatever_ends_it_the_check_goes_first(
    site: Site, at_validate: Callable[[Callable[[], object]], None], error: BaseException
) -> None:
    """A timeout, a second Ctrl-C, an error of the server: the run ends as it would, and no UPDATE meets the
    check.
    """
    at_validate(raising(error))
    site.signal.stop("SIGINT")  # no stop keeps the drop from its window
    context = site.context()
    context = replaced(context, worker=replace(context.worker, signal=Signal()))
    with pytest.raises(type(error)):
        site.operation().execute(context, site.step().spec.params)
    assert site.one(CHECKS) == 0
    assert site.state() is State.ABSENT


def test_a_stop_at_the_worst_moment_leaves_no_check(
    site: Site, at_validate: Callable[[Callable[[], object]], None]
) -> None:
    """VALIDATE finds a NULL, and the operator has asked for a stop meanwhile: the check goes, then the run
    stops.
    """

    def happens() -> None:
        site.sql("ALTER TABLE transactions DROP CONSTRAINT online_migrate_bot_id_not_null;" + LEFT)
        site.signal.stop("SIGINT")

    at_validate(happens)
    with pytest.raises(Interrupted):
        site.execute()
    assert site.one(CHECKS) == 0
    assert len(site.sql(AN_OLD_ROW)) == 1


def test_a_check_that_cannot_be_taken_away_is_named_with_its_drop(
    site_of: OpenSite, at_validate: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that blocks until the end: the error names it, what it delays, and the statement that ends
    it.
    """
    monkeypatch.setattr(owed_check, "LAST_WAIT_S", 0.5)
    site = site_of(PLAN.replace("plan: harness\n", f"plan: harness\n{SHORT}\n"))
    site.sql(EMPTY_COLUMN)
    site.execute(site.step("backfill"))
    with connect(site.app.info.dsn) as other:
        other.autocommit = False
        pid = other.info.backend_pid

        def happens() -> None:
            other.execute(IN_THE_WAY)
            raise Interrupted("VALIDATE: cancelled: SIGINT")

        at_validate(happens)
        with pytest.raises(Interrupted) as ended:
            site.execute()
        other.rollback()
    said = ended.value.message
    assert said.startswith(
        "VALIDATE: cancelled: SIGINT\ntransactions keeps the check online_migrate_bot_id_not_null"
    )
    assert "every UPDATE of a row whose bot_id is NULL fails with 23514" in said
    assert "nothing was changed" not in said
    assert f"blocked by pid {pid}" in said
    assert (
        'ALTER TABLE "public"."transactions" DROP CONSTRAINT "online_migrate_bot_id_not_null"'
        in ended.value.remedy
    )
    assert str(ended.value) == said
    site.execute()
    assert site.state() is State.DONE


def test_who_lost_the_lease_leaves_the_check_to_the_next_and_says_so(
    site: Site, at_validate: Callable[[Callable[[], object]], None]
) -> None:
    """Fenced off, we may not even drop: the error is the lease's, exit 6, and names
    the check all the same.
    """

    def happens() -> None:
        site.sql("UPDATE online_migrate.epoch SET epoch = epoch + 1")
        raise Interrupted("VALIDATE: cancelled: another runner took the lease over")

    at_validate(happens)
    with pytest.raises(LeaseLost, match="keeps the check online_migrate_bot_id_not_null"):
        site.execute()
    assert site.one(CHECKS) == 1


def test_a_leftover_over_nulls_goes_before_anything_is_scanned_behind_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed runner's check over a NULL row: it is dropped before the sweep, which may take long, and
    before a VALIDATE.
    """
    site.sql(LEFT)
    seen: list[tuple[str, int]] = []
    real = steps.run_long
    prove = SetNotNull._prove

    def run_long(context: Context, statement: Statement) -> None:
        seen.append(("validate", site.one("SELECT count(*) FROM transactions WHERE bot_id IS NULL")))
        real(context, statement)

    def proved(self: SetNotNull, context: Context, params: SetNotNullParams) -> None:
        seen.append(("prove", site.one(CHECKS)))
        prove(self, context, params)

    monkeypatch.setattr("online_migrate.operations.set_not_null.run_long", run_long)
    monkeypatch.setattr(SetNotNull, "_prove", proved)
    site.execute()
    assert seen == [("prove", 0), ("validate", 0)]
    assert site.state() is State.DONE


# Names

LONG = "ж" * 30
"""60 bytes of a name in 30 characters"""


def test_a_long_name_in_another_script_is_found_again(site_of: OpenSite) -> None:
    """The server cuts names by bytes; a check of ours that is cut is never found
    again, and keeps blocking.
    """
    site = site_of(plan_of(f"set_not_null: {{table: transactions, column: {LONG}}}"))
    site.sql(f'ALTER TABLE transactions ADD COLUMN "{LONG}" integer DEFAULT 1')
    site.execute()
    assert site.state() is State.DONE
    assert site.one(CHECKS) == 0


def test_two_columns_alike_at_their_beginning_have_two_checks() -> None:
    """Cut names are distinguished by a hash, and stay within 63 bytes; a short name is as it always was."""
    first, second = (check_name("an_owner_of_some_other_kind_with_a_name_" + end) for end in ("a", "b"))
    assert first != second
    assert max(len(check_name(n).encode()) for n in (LONG, "a" * 63, "a" * 39, "a" * 40)) <= 63
    assert check_name("bot_id") == "online_migrate_bot_id_not_null"


def test_a_check_that_an_earlier_version_named_is_found_by_what_it_says(site_of: OpenSite) -> None:
    """Earlier versions cut the name otherwise; the leftover is used, then dropped.  Another owner's check
    stays.
    """
    column = "a_column_whose_name_is_longer_than_thirty_bytes"
    old = f"online_migrate_{column}"[:54] + "_not_null"
    site = site_of(plan_of(f"set_not_null: {{table: transactions, column: {column}}}"))
    site.sql(
        f"ALTER TABLE transactions ADD COLUMN {column} integer DEFAULT 1,"
        f" ADD CONSTRAINT theirs CHECK ({column} IS NOT NULL);"
        f"ALTER TABLE transactions ADD CONSTRAINT {old} CHECK ({column} IS NOT NULL) NOT VALID"
    )
    assert site.state() is State.PARTIAL
    site.execute()
    assert site.state() is State.DONE
    assert site.sql(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'transactions'::regclass AND contype = 'c'"
    ) == [("theirs",)]


# Tables below the table

PARENT = """
    CREATE TABLE parcels (id int, bot_id int) PARTITION BY RANGE (id);
    CREATE TABLE parcels_1 PARTITION OF parcels FOR VALUES FROM (1) TO (9);
    CREATE TABLE letters (id int, bot_id int);
    CREATE TABLE old_letters () INHERITS (letters);
    INSERT INTO parcels VALUES (1, NULL); INSERT INTO old_letters VALUES (1, NULL);"""


@pytest.mark.parametrize(
    ("table", "code", "way"),
    [("letters", "inherited", "name them")],
)
def test_what_would_bind_other_tables_is_refused(site_of: OpenSite, table: str, code: str, way: str) -> None:
    """The check would bind partitions and heirs, of which nothing is proven; and were it run, the NULL there
    is found.
    """
    site = site_of(plan_of(f"set_not_null: {{table: {table}, column: bot_id}}"))
    site.sql(PARENT)
    (finding,) = site.stops()
    assert finding.code == code
    assert way in finding.remedy
    with pytest.raises(VerificationFailed, match="rows without bot_id"):
        site.execute()
    assert (
        site.one("SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conname ~ '^online_migrate'")
        == 0
    )


def test_a_partition_by_itself_is_a_table(site_of: OpenSite) -> None:
    """The way that the finding names works, and SET NOT NULL on the root then reads no row."""
    site = site_of(plan_of("set_not_null: {table: parcels_1, column: bot_id}"))
    site.sql(PARENT + "UPDATE parcels SET bot_id = 1;")
    assert site.stops() == []
    site.execute()
    assert site.state() is State.DONE
    site.sql("ALTER TABLE parcels ALTER bot_id SET NOT NULL")


IN_STAGES = """plan: harness
stages:
  - stage: before
    steps:
      - backfill: {table: transactions, column: bot_id, value: {sql: "NULL::int"}}
  - stage: fill
    pace: {duty: 100%, max_rows: 111}
    hold_when: {oldest_snapshot: 55min}
    steps:
      - backfill: {table: transactions, column: bot_id, value: 1, triggers: skip}
  - stage: here
    pace: {duty: 1%, max_rows: 77}
    steps:
      - set_not_null: {table: transactions, column: bot_id}
"""
REFUSES = """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not for old rows'; END
  $$;
             CREATE TRIGGER no BEFORE UPDATE ON transactions FOR EACH ROW EXECUTE FUNCTION no()"""


def test_a_late_null_is_filled_as_the_plan_s_backfill_would(
    site_of: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last backfill of the column above: its value, its `triggers: skip`, and its own stage's pace and
    holds.
    """
    site: Site = site_of(IN_STAGES)
    site.sql(EMPTY_COLUMN)
    site.execute(site.step("backfill"))
    site.sql(FORGET)
    site.sql(REFUSES)
    contexts: list[BackfillContext] = []

    class Recorded(Backfill):
        def __init__(self, context: BackfillContext, **more: Any) -> None:
            contexts.append(context)
            super().__init__(context, **more)

    monkeypatch.setattr(set_not_null, "TableBackfill", Recorded)
    site.execute()
    assert site.state() is State.DONE
    (context,) = contexts
    assert (context.pace.duty, context.pace.max_rows) == (1.0, 111)
    assert context.hold_when.oldest_snapshot == 55 * 60
    assert context.key[0] == "fill"


@pytest.fixture
def quiet_site(site_of: OpenSite) -> Site:
    """Backfilled, proven, and quiet for as long as the plan says."""
    site: Site = site_of(
        plan_of(
            "backfill: {table: transactions, column: bot_id, value: 1, quiet: 1500ms}",
            "set_not_null: {table: transactions, column: bot_id}",
            stage="pace: {duty: 100%}",
        )
    )
    site.sql(EMPTY_COLUMN)
    site.execute(site.step("backfill"))
    return site


def test_what_was_quiet_long_enough_goes_on_at_once(quiet_site: Site) -> None:
    """The backfill's own wait counts; explain says what is asked for."""
    began = time.monotonic()
    quiet_site.execute()
    assert time.monotonic() - began < 1.0
    proof = quiet_site.operation().statements(quiet_site.place(), quiet_site.step().spec.params)[0]
    assert proof.note.endswith("no row, and none seen for 1.5 s")


def test_a_proof_that_is_clean_by_luck_waits_all_the_same(quiet_site: Site) -> None:
    """A NULL was seen and fixed, then the run was stopped: the next one finds none, and waits for the rest of
    the time.
    """
    site = quiet_site
    site.sql(FORGET)
    context = site.context()

    class StopWithoutOldRow(Steering):
        def read_stop(self) -> str | None:
            return None if site.sql(AN_OLD_ROW) else "requested by the operator"

    run = replace(context.run, signal=Signal(), steering=StopWithoutOldRow())
    stopped = replaced(context, run=run)
    with pytest.raises(Interrupted):
        site.operation().execute(stopped, site.step().spec.params)
    mended_at = time.monotonic()
    assert not site.sql(AN_OLD_ROW)
    site.execute()
    assert time.monotonic() - mended_at > 1.5 - 0.4
    assert site.state() is State.DONE


def test_a_null_that_validate_found_begins_the_time_anew(quiet_site: Site) -> None:
    """Although the application gives it a value by itself before the next proof."""
    site = quiet_site
    times: list[float] = []

    class BesideOneThatMends(SetNotNull):
        def _prove(self, context: Context, params: SetNotNullParams) -> None:
            site.sql("UPDATE transactions SET bot_id = 1 WHERE bot_id IS NULL")
            times.append(time.monotonic())
            super()._prove(context, params)
            if len(times) == 1:
                site.sql(FORGET)

    params = site.step().spec.params
    assert isinstance(params, SetNotNullParams)
    BesideOneThatMends().execute(site.context(), params)
    _, seen_at = times
    assert time.monotonic() - seen_at > 1.5 - 0.4
    assert site.state() is State.DONE


def test_a_null_that_was_seen_counts_although_we_end_there(
    quiet_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written down before the check is taken away: a run that ends in between waits all the same when
    it goes on.
    """
    site, moved_at = quiet_site, "SELECT moved_at FROM online_migrate.cursor"
    before = site.one(moved_at)

    class Forgetting(SetNotNull):
        def _prove(self, context: Context, params: SetNotNullParams) -> None:
            super()._prove(context, params)
            site.sql(FORGET)

    def end(*_: object, **__: object) -> None:
        raise LeaseLost("ended")

    monkeypatch.setattr(owed_check.OwedCheck, "drop_now", end)
    params = site.step().spec.params
    assert isinstance(params, SetNotNullParams)
    with pytest.raises(LeaseLost):
        Forgetting().execute(site.context(), params)
    assert site.one(moved_at) > before


def test_the_check_waits_until_no_null_came_for_as_long_as_the_plan_says(quiet_site: Site) -> None:
    """Write coverage: a check would fail the writer that still forgets the column; its last NULL restarts the
    time.
    """
    site = quiet_site
    site.sql(FORGET)
    writer = threading.Timer(0.7, site.sql, [FORGET])
    writer.start()
    began = time.monotonic()
    site.execute()
    assert time.monotonic() - began > 0.7 + 1.5 - 0.4  # proofs come four times within the time
    assert site.state() is State.DONE
    writer.join()


def test_an_application_that_leaves_the_column_out_is_told_before(site_of: OpenSite) -> None:
    """Without a default its INSERT fails from this step on: a warning, unless a default, a trigger or a gate
    exists.
    """
    add = "add_column: {table: transactions, column: reg, type: integer%s}"
    steps = (
        "backfill: {table: transactions, column: reg, value: 1}",
        "set_not_null: {table: transactions, column: reg}",
    )
    (found,) = site_of(plan_of(add % "", *steps)).preflight()
    assert (found.severity, found.code) == (Severity.WARN, "inserts_refused")
    assert "an INSERT that does not name it fails (23502)" in found.fact
    assert site_of(plan_of(add % ", new_rows: 1", *steps, name="given")).preflight() == []
    dropped = plan_of(
        add % ", new_rows: 1",
        steps[0],
        "drop_default: {table: transactions, column: reg}",
        steps[1],
        name="dropped",
    )
    assert [f.code for f in site_of(dropped).preflight()] == ["inserts_refused"]
    site = site_of(
        plan_of(add % "", *steps, stage="gate: {approval: the release that writes it is out}", name="gated")
    )
    assert site.preflight() == []
    site = site_of(plan_of(add % "", *steps, name="triggered"))
    site.sql(
        "CREATE FUNCTION give() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.reg := 1; RETURN new; END"
        " $$;"
        "CREATE TRIGGER give BEFORE INSERT ON transactions FOR EACH ROW EXECUTE FUNCTION give()"
    )
    assert site.preflight() == []


def test_rows_that_no_step_fills_stop_the_check(site_of: OpenSite) -> None:
    """Of an existing column, and of one that is added; behind a gate the rows may be filled, so it is a
    warning.
    """
    step = "set_not_null: {table: transactions, column: bot_id}"
    site = site_of(plan_of(step))
    site.sql(EMPTY_COLUMN)
    (found,) = site.stops()
    assert found.code == "nulls"
    assert "no step above gives them one: id = 1;" in found.fact
    gated = site_of(plan_of(step, stage="gate: {approval: filled}", name="gated"))
    assert [(f.severity, f.code) for f in gated.preflight()] == [(Severity.WARN, "nulls")]
    add = "add_column: {table: transactions, column: reg, type: integer, new_rows: 1%s}"
    step = step.replace("bot_id", "reg")
    assert [f.code for f in site_of(plan_of(add % "", step, name="added")).stops()] == ["nulls"]
    assert site_of(plan_of(add % ", instant: true", step, name="instant")).stops() == []
