"""The report: a whole run from its journal alone, as one file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from online_migrate import events as e
from online_migrate.cli import main
from online_migrate.journal.records import HistoryRecord
from online_migrate.journal.requests import approve
from online_migrate.observe.page.locks import sum_locks
from online_migrate.observe.page.report import (
    find_away,
    find_growth,
    make_report,
    read_report,
    sum_throughput,
)
from tests.observe.made_runs import BACKFILL, NOON, MadeRun, begun_run, make_record, make_snapshot, whole_run
from tests.observe.night import Night

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.observe.page.looking import Look

PLAN = Path(__file__).parents[3] / "plans" / "multi_tenant.yaml"
STARTED = e.RunStarted(plan="shop", run_id=1, resumed=False, steps_total=1, steps_done=0)
ENDED = e.RunEnded(outcome="gate", exit_code=75, seconds=9)


@pytest.fixture
def run(database: str) -> Iterator[MadeRun]:
    with begun_run(database) as made:
        yield made


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def at_times(*events: tuple[float, e.Event]) -> list[HistoryRecord]:
    return [make_record(event, after(seconds)) for seconds, event in events]


def test_the_journal_alone_says_all_of_it(run: MadeRun) -> None:
    """A reader of the report months later has no metrics, no logs and no terminal any more."""
    run.tell(*whole_run(), e.TablesMeasured(sizes={"users": (100, 50)}))
    run.tell(e.TablesMeasured(sizes={"users": (120, 80), "orders": (7, 7)}))
    approve(run.journal.connection, plan="shop", stage="swap", approved_by="ada", note="2.4 is live")
    document = read_report(run.journal.connection, "shop")
    assert document is not None
    report = document["report"]
    assert [stage["stage"] for stage in report["stages"]] == ["tables", "columns", "fill", "swap"]
    assert report["hold_kinds"][0]["kind"] == "blocker"
    assert "pid 13" in report["holds"][0]["reason"]
    assert (report["locks"]["windows"], report["locks"]["failed_attempts"]) == (1, 1)
    assert report["locks"]["longest"][0]["relation"] == "users"
    assert report["growth"][0] == {
        "table": "users", "table_before": 100, "table_after": 120, "indexes_before": 50, "indexes_after": 80,
    }  # fmt: skip
    assert sorted((a["approved_by"], a["note"]) for a in report["approvals"]) == [
        ("ada", "2.4 is live"),
        ("ada", "changed plan accepted by ada: stage swap, step analyze: was added"),
        ("ada", "reopened by ada: dropped by mistake"),
    ]
    assert [f["severity"] for f in report["findings"]] == ["warn"]
    assert document["events"][-1]["text"].startswith("plan shop starts")


def test_no_run_has_no_report(run: MadeRun) -> None:
    """Nothing is made up for a plan that never ran."""
    assert read_report(run.journal.connection, "another") is None


def test_when_no_runner_was_there_is_shown() -> None:
    """Who was killed could not say so: what comes next shows it."""
    history = at_times(
        (0, STARTED), (5, e.Note(message="last words")), (60, e.CheckFound(severity="ask", fact="?")),
        (65, STARTED), (70, ENDED), (71, e.TablesMeasured(sizes={})), (100, STARTED), (101, e.Note(message="x")),
    )  # fmt: skip
    away = find_away(history, make_snapshot(is_live=True))
    assert [(a["outcome"], a["begins_at"], a["ends_at"]) for a in away] == [
        ("killed", after(5).isoformat(), after(65).isoformat()),
        ("gate", after(70).isoformat(), after(100).isoformat()),
    ]
    away = find_away(history, make_snapshot(is_live=False, read_at=after(200)))
    assert away[-1] == {
        "begins_at": after(101).isoformat(), "ends_at": after(200).isoformat(), "outcome": "killed",
    }  # fmt: skip


def test_a_run_that_was_measured_once_has_not_grown_yet() -> None:
    """During a run there is a before and no after."""
    history = at_times((0, e.TablesMeasured(sizes={"small": (1, 1), "users": (100, 50)})))
    growth = find_growth(history)
    assert [g["table"] for g in growth] == ["users", "small"]
    assert growth[0]["table_after"] is None


def test_holds_are_summed_and_the_longest_are_shown() -> None:
    """A night of a thousand short pauses stays readable, and every second is in the sums."""
    events = list[tuple[float, e.Event]]()
    for n in range(1_000):
        place: dict[str, Any] = {"stage": "fill", "step": "backfill bot_id", "table": f"t{n}"}
        events.append((10 * n, e.WaitStarted(**place, kind="standby_lag", reason="behind")))
        events.append((10 * n + 1 + n / 1_000, e.WaitEnded(**place, kind="standby_lag", seconds=1)))
    report = make_report(make_snapshot(), at_times(*events), stages=(), approvals=())
    assert report["hold_kinds"][0]["times"] == 1_000
    assert report["hold_kinds"][0]["seconds"] == pytest.approx(1_000 + 999 / 2, rel=1e-3)
    assert (len(report["holds"]), report["holds_left_out"]) == (200, 800)
    assert report["holds"] == sorted(report["holds"], key=lambda hold: hold["begins_at"])


def test_rows_are_the_cursor_s_and_the_rate_is_what_was_measured() -> None:
    """Up to ten seconds of sums go with a runner that is killed; its rows were committed with the cursor, and
    are not lost.
    """
    place: dict[str, Any] = dict(zip(("stage", "step", "table"), BACKFILL, strict=True))
    reported = e.Throughput(
        **place, rows=40_000, batches=80, pages=9, worked_s=5, paused_s=5, rows_done=40_000, share_done=0.4
    )
    (users,) = sum_throughput(at_times((10, reported)), make_snapshot().steps)
    assert (users["table"], users["rows"], users["rate"], users["batches"]) == ("users", 45_000, 4_000, 80)


def test_locks_are_told_by_their_worst() -> None:
    """The target is the 99th percentile of the hold: the report says it, and which
    windows were the longest.
    """
    held = [
        (n, e.LockHeld(stage="swap", relation=f"t{n}", lock="ACCESS EXCLUSIVE", attempts=1, waited_s=0.0, held_s=n / 1_000))
        for n in range(1, 101)
    ]  # fmt: skip
    locks = sum_locks(at_times(*held))
    assert (locks["held_p50_s"], locks["held_p99_s"], locks["held_longest_s"]) == (0.05, 0.099, 0.1)
    assert [w["relation"] for w in locks["longest"][:2]] == ["t100", "t99"]


def call(dsn: str, *words: str) -> Result:
    environ = {"ONLINE_MIGRATE_DSN": dsn, "MASTER_BOT_TOKEN": "1:made-up"}
    return CliRunner().invoke(main, words, env=environ)


def test_a_report_of_nothing_is_an_error_of_usage(shop: str, tmp_path: Path) -> None:
    """The operator reads what to do, and no file is left behind."""
    path = tmp_path / "report.html"
    result = call(shop, "report", str(PLAN), "-o", str(path))
    assert (result.exit_code, path.exists()) == (2, False)
    assert "online-migrate run" in result.output


@pytest.mark.chromium
@pytest.mark.prometheus
@pytest.mark.timeout(240)
def test_the_report_of_a_real_night_is_read_in_a_browser_without_any_server(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    """One file, opened from a disk: every section has what happened that night, on a wide screen and on a
    phone, and it asks for nothing.
    """
    from tests.observe.page.looking import NARROW, WIDE, looking

    monkeypatch.chdir(tmp_path)
    made = call(night.dsn, "report", str(night.folder / "plans" / "multi_tenant.yaml"))
    assert (made.exit_code, made.output) == (0, "report: multi_tenant-report.html\n")
    for size in (WIDE, NARROW):
        with looking(browser, (tmp_path / "multi_tenant-report.html").as_uri(), size=size) as look:
            assert look.text("#word") == "done"
            assert look.page.locator("#report svg rect.span").count() == 8
            away = look.page.locator("#report svg rect.away").all_text_contents()
            assert away == ["no runner at work: gate", "no runner at work: killed"]
            assert {row[0] for row in rows_of(look, "holds")[:2]} == {"standby_lag", "blocker"}
            assert "was streaming and has disconnected" in look.text("section:has(> #chapter-holds)")
            assert int(look.text("#chapter-locks + p").split()[0]) > 100
            written = {row[0]: int(row[1].replace(",", "")) for row in rows_of(look, "throughput")}
            assert written == rows_by_table(night.dsn)
            assert len(rows_of(look, "growth")) >= 37
            assert [row[0] for row in rows_of(look, "approvals")] == ["swap"]
            assert "a prepared SELECT *" in look.text("section:has(> #chapter-findings)")
            assert "37 backfills ended with a proof" in look.text("#chapter-verified + p")
            assert look.page.get_by_role("heading", level=2).count() == 13
            assert not look.is_cut_off
            assert look.complaints == []
            assert look.places <= {"file://", "data://"}


def rows_of(look: Look, chapter: str) -> list[list[str]]:
    """The cells of a section's tables, row by row."""
    rows = look.page.locator(f"section:has(> #chapter-{chapter}) tbody tr").all()
    return [row.locator("th, td").all_text_contents() for row in rows]


def rows_by_table(dsn: str) -> dict[str, int]:
    """What the backfill wrote, by the journal's cursors, of tables that had any."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT table_name, rows_done FROM online_migrate.step WHERE stage = 'backfill' AND rows_done > 0"
        ).fetchall()
    return dict(rows)
