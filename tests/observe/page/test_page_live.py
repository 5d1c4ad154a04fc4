"""The status page in a real browser: during a real run, and for what a run seldom shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import pytest

from online_migrate import events as e
from online_migrate.demo.shop import BRIEF_TABLES, FURTHER_TABLES
from online_migrate.observe.page.serve import StatusPage
from online_migrate.observe.snapshot.views import Snapshot, WaitView
from online_migrate.observe.web import WebServer
from tests.observe.made_runs import BACKFILL, NOON, make_crowd, make_record, make_snapshot, started
from tests.observe.night import SLOW_PACE, free_port, gentle_plan, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.observe.page.looking import Look

pytestmark = pytest.mark.chromium

Looking = Callable[..., "AbstractContextManager[Look]"]
LOCKED = "users is locked by pid 4711 (app, billing), idle in transaction for 41 s"
EVIL = "<img src=x onerror=\"document.title='evil'\">"


@contextmanager
def a_runner(dsn: str, folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """The example plan, made slow, up to its indexes."""
    plan = gentle_plan(folder)
    plan.write_text(plan.read_text().replace(SLOW_PACE, "pace: {batch_target: 10ms, duty: 5%, max_rows: 50}"))
    command = [sys.executable, "-m", "online_migrate.cli", "run", str(plan), "--through", "backfill",
               "--metrics-port", str(port)]  # fmt: skip
    environ = {**os.environ, "ONLINE_MIGRATE_DSN": dsn, "MASTER_BOT_TOKEN": "1:made-up"}
    with (folder / "run.log").open("w") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def served(snapshot: Snapshot) -> Iterator[str]:
    """The page of that snapshot, at an address."""
    page = StatusPage(snapshot.plan)
    page.update(snapshot)
    server = WebServer(page.routes)
    yield server.start()
    server.stop()


@pytest.fixture
def look_at(browser: Browser) -> Looking:
    from tests.observe.page.looking import looking

    return lambda url, **how: looking(browser, url, **how)


def holding(tables: Sequence[str] = ("users", "orders")) -> Snapshot:
    """A backfill that waits for a session of the application."""
    place: dict[str, Any] = dict(zip(("stage", "step", "table"), (*BACKFILL[:2], tables[0]), strict=True))
    now = NOON + timedelta(minutes=20)
    since = now - timedelta(seconds=41)
    history = [
        make_record(started(tables[0]), NOON + timedelta(minutes=5)),
        *(
            make_record(
                e.Throughput(**place, rows=40_000, batches=20, pages=9, worked_s=5, paused_s=5,
                             rows_done=40_000 * n, share_done=n / 200),
                NOON + timedelta(minutes=5, seconds=10 * n),
            )
            for n in range(1, 86)
        ),
        make_record(e.WaitStarted(**place, kind="blocker", reason=LOCKED), since),
        make_record(e.BlockersSeen(**place, waiting_for="users", blockers=("pid 4711: UPDATE users",)), since),
    ]  # fmt: skip
    wait = WaitView(kind="blocker", reason=LOCKED, since=since, **place)
    return make_snapshot(tuple(tables), read_at=now, waits=(wait,), reason=LOCKED, history=tuple(history))


@pytest.mark.timeout(120)
def test_an_operator_sees_a_real_run_move(shop: str, tmp_path: Path, look_at: Looking) -> None:
    """The page of a real runner: tables by name, figures that move, why it waits, nothing from elsewhere, no
    error.
    """
    port = free_port()
    with psycopg.connect(shop) as session, a_runner(shop, tmp_path, port) as process:
        session.execute("SELECT count(*) FROM tickets")
        wait_for(lambda: "status page: http" in (tmp_path / "run.log").read_text(), 20)
        with look_at(f"http://127.0.0.1:{port}/") as look:
            look.wait_for("document.getElementById('word').textContent === 'holding'", 40)
            assert "idle in transaction" in look.text("#reasons")
            look.wait_for("document.getElementById('blockers').textContent.includes('tickets')")
            assert look.figure("Time left") == "n/a"
            assert look.page.locator("#matrix tbody th", has_text=re.compile("^tickets$")).count() == 1
            session.rollback()
            look.wait_for("document.getElementById('why').hidden")
            assert_it_moves(look)
            assert look.complaints == []
            process.terminate()
            assert process.wait(30) == 130, (tmp_path / "run.log").read_text()
            look.wait_for("!document.getElementById('contact').hidden")
            assert "does not answer" in look.text("#contact")
            refused_or_reset = "net::ERR_"  # it may go while it is asked
            assert [c for c in look.complaints if refused_or_reset not in c] == []
            assert look.places == {f"http://127.0.0.1:{port}"}


def assert_it_moves(look: Look) -> None:
    """Rows are written, a rate is measured and drawn, a time left is shown, a table is running."""
    look.wait_for("/Time left in backfill/.test(document.body.innerText)", 40)
    seen = int(look.figure("Rows written").replace(",", ""))
    look.wait_for(
        "parseInt([...document.querySelectorAll('#figures dd span')][1].textContent.replaceAll(',', '')) >"
        f" {seen}"
    )
    look.wait_for("/^[0-9,]+$/.test(document.querySelectorAll('#figures dd span')[2].textContent)")
    look.wait_for("document.querySelector('#curve svg path.line') !== null")
    look.wait_for("/^[0-9.]+ (s|min)/.test(document.querySelectorAll('#figures dd span')[3].textContent)")
    look.wait_for("document.querySelector('#working li b') !== null")
    look.wait_for("document.querySelector('#matrix td.running') !== null")
    assert look.page.locator("#events li").count() >= 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_is_cut_off(look_at: Looking, width: int, scheme: Literal["light", "dark"]) -> None:
    """Read on a phone in bed and on a wall: the page is never wider than the screen, in either colours."""
    with served(holding()) as url, look_at(url, size=(width, 800), scheme=scheme) as look:
        look.wait_for("document.querySelectorAll('#matrix tbody tr').length === 3")
        assert not look.is_cut_off
        ground = look.ask("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 128) == (scheme == "dark")
        assert look.complaints == []


def test_tables_that_have_passed_leave_room_for_those_at_work(look_at: Looking) -> None:
    """Twenty are shown in one line, which says what comes next; waiting tables come first, and none is
    missing.
    """
    tables = BRIEF_TABLES + FURTHER_TABLES
    with served(make_crowd(tables)) as url, look_at(url, size=(390, 844)) as look:
        look.wait_for("document.querySelectorAll('#working li').length > 3")
        names = look.page.locator("#working li b").all_inner_texts()
        assert names == [*tables[24:27], *tables[20:24], "20 tables"]
        assert look.text("#working-title") == "Running: 20 of 37 tables filled"
        last = look.page.locator("#working li").last.inner_text()
        assert f"{tables[0]}, {tables[1]} and 18 more" in last
        assert "all pages are filled; the proof starts when the other tables are filled" in last
        assert "rows/s" not in last
        assert not look.is_cut_off
        assert look.complaints == []


def test_thirty_waits_are_a_few_lines(look_at: Looking) -> None:
    """Why it waits is not a screen of sentences."""
    with (
        served(make_crowd(BRIEF_TABLES + FURTHER_TABLES, passed=0, moving=0, locked=30, held=0)) as url,
        look_at(url) as look,
    ):
        look.wait_for("!document.getElementById('why').hidden")
        lines = look.text("#reasons").splitlines()
        assert len(lines) == 3
        assert lines[-1] == "28 more (table_lock)"
        assert look.text("#since").endswith("; 27 more")


def test_what_is_to_be_known_of_the_runner_stands_above_its_waits(look_at: Looking) -> None:
    """A stop that was asked for is seen on the page, too, whether the runner waits meanwhile or not."""
    asked = "stop requested (SIGINT): the run ends after the current batch or statement"
    for waiting, lines in ((holding(), [asked, LOCKED]), (make_snapshot(), [asked])):
        with served(replace(waiting, notes=(asked,))) as url, look_at(url) as look:
            look.wait_for("!document.getElementById('why').hidden")
            assert look.text("#reasons").splitlines() == lines
            assert look.complaints == []


def test_three_hundred_tables_are_found_by_name_and_by_state(look_at: Looking) -> None:
    """At 300 tables an operator types a name, or asks for what is running, and the page stays one screen or
    two.
    """
    tables = [f"tenant_{n:03}" for n in range(300)]
    with served(holding(tables)) as url, look_at(url) as look:
        look.wait_for("document.querySelectorAll('#matrix tbody tr').length === 301")
        assert look.text("#shown") == "300 tables"
        assert look.ask("document.documentElement.scrollHeight") < 3_000
        look.page.get_by_label("Find a table").fill("tenant_29")
        assert look.text("#shown") == "10 of 300 tables"
        look.page.get_by_label("Find a table").fill("")
        look.page.get_by_label("Show").select_option("running")
        assert look.page.locator("#matrix tbody tr:visible").all_inner_texts()[0].startswith("tenant_000")
        assert look.text("#shown") == "1 of 300 tables"


def test_a_table_may_be_called_anything(look_at: Looking) -> None:
    """Names are data: one that looks like HTML is shown as it is, and is no HTML."""
    with served(holding((EVIL, "orders"))) as url, look_at(url) as look:
        look.wait_for("document.querySelectorAll('#matrix tbody tr').length === 3")
        assert EVIL in look.text("#matrix")
        assert look.page.locator("img").count() == 0
        assert look.page.title() == "holding: shop"
        assert look.complaints == []


def test_it_is_read_aloud_and_used_by_keyboard(look_at: Looking) -> None:
    """Landmarks, one title, headers for every cell, a reason that is announced once, and all of it without a
    mouse.
    """
    with served(holding()) as url, look_at(url) as look:
        look.wait_for("document.querySelectorAll('#matrix tbody tr').length === 3")
        for landmark in ("banner", "main", "contentinfo"):
            assert look.page.get_by_role(landmark).count() == 1
        assert look.page.get_by_role("heading", level=1).all_inner_texts() == ["shop"]
        assert look.page.get_by_role("table", name="The state of each step on each table").count() == 1
        assert look.ask("[...document.querySelectorAll('th')].every((th) => th.scope)")
        assert look.page.get_by_role("cell", name="running, 45 %").count() == 1
        assert look.page.locator("[aria-live=polite]").inner_text() == LOCKED
        assert look.ask(
            "[...document.querySelectorAll('section')].every((s) => s.hasAttribute('aria-labelledby') ||"
            " s.hasAttribute('aria-label'))"
        )
        stops = []
        for _ in range(5):
            look.page.keyboard.press("Tab")
            stops.append(look.ask("document.activeElement.className || document.activeElement.id"))
        assert stops[0] == "skip"
        assert {"find", "show", "scroll"} <= set(stops)


def test_the_announcement_does_not_repeat_itself(look_at: Looking) -> None:
    """A screen reader does not repeat the same reason every second: the live region changes only when the
    reason does.
    """
    snapshot = holding()
    page = StatusPage("shop")
    page.update(snapshot)
    server = WebServer(page.routes)
    with look_at(server.start()) as look:
        look.wait_for("document.getElementById('since').textContent.includes('41 s')")
        look.ask(
            "window.changes = 0, new MutationObserver((all) => { window.changes += all.length })"
            ".observe(document.getElementById('reasons'), {childList: true, characterData: true, subtree:"
            " true})"
        )
        page.update(replace(snapshot, read_at=snapshot.read_at + timedelta(seconds=5)))
        look.wait_for("document.getElementById('since').textContent.includes('46 s')")
        assert look.ask("window.changes") == 0
    server.stop()
