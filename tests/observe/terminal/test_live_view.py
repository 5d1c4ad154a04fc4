"""A run on the terminal, and in lines."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from online_migrate.demo.shop import BRIEF_TABLES, FURTHER_TABLES
from online_migrate.journal.lease import Holder
from online_migrate.observe.snapshot.views import Snapshot, WaitView
from online_migrate.observe.terminal.live_view import LiveView, render
from online_migrate.observe.terminal.status_line import status_line
from tests.observe.made_runs import BACKFILL, LONG_REASON, NOON, make_crowd, make_snapshot
from tests.observe.terminal.test_logs import FixedClock

ALL = BRIEF_TABLES + FURTHER_TABLES


def draw(snapshot: Snapshot, width: int = 100, height: int = 60) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(render(snapshot))
    return stream.getvalue()


def test_the_picture() -> None:
    """Where it is, how far, how fast, how long: each fact is where an operator looks for it."""
    assert draw(make_snapshot(), width=80) == (
        "shop  running  3 of 7 steps  2 min 05 s\n"
        "1 tables ✓  2 columns ✓  3 fill ▶  4 swap ·\n"
        "             1  2  3 fill                         4 \n"
        "users           ✓  ━━━━──────  45 % 96k/s 3.0 s   · \n"
        "orders          ✓  ·                              · \n"
        "(no table)   ✓                                      \n"
    )


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_37_tables_fit_a_terminal(width: int) -> None:
    """No line is broken or cut, and every table is there by its name."""
    shown = draw(make_snapshot(ALL), width=width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 37 + 1 + 3
    assert all(table in shown for table in ALL)
    assert "━━━━──────  45 % 96k/s 3.0 s" in shown


def test_a_low_terminal_shows_what_matters() -> None:
    """With 24 lines the table that runs is seen, and how many others there are."""
    shown = draw(make_snapshot(ALL), width=80, height=24)
    assert len(shown.splitlines()) <= 24
    assert "━━━━" in shown
    assert "more tables" in shown


def test_why_it_waits_is_at_the_top() -> None:
    """The first question at night is answered in the first lines."""
    wait = WaitView(
        kind="blocker", reason="pid 12 (app) has been in a transaction for 4 s", since=NOON,
        stage=BACKFILL[0], step=BACKFILL[1], table=BACKFILL[2],
    )  # fmt: skip
    lines = draw(make_snapshot(reason=wait.reason, waits=(wait,)), width=120).splitlines()
    assert lines[2] == (
        "⏸ fill / backfill bot_id / users, for 2 min 05 s: pid 12 (app) has been in a transaction for 4 s"
    )


def test_a_gate_says_what_is_asked() -> None:
    """A person who has to approve reads here what they promise."""
    snapshot = make_snapshot()
    gate = replace(snapshot.stages[-1], state="waiting", reason="the new release is live")
    shown = draw(replace(snapshot, state="waiting", stages=(*snapshot.stages[:-1], gate)))
    assert "⏸ gate of swap: the new release is live" in shown


def test_a_dead_runner_is_not_drawn_as_running() -> None:
    """After a crash the screen says that no runner is running."""
    holder = Holder(runner="ada@host, process 1", plan="shop", since="", heartbeat_age_s=75)
    snapshot = make_snapshot(
        is_live=False, holder=holder, reason="no runner is at work, last heartbeat 1 min 15 s ago"
    )
    assert draw(snapshot).startswith("shop  no runner  ")
    assert "no runner" in status_line(snapshot)


def test_a_failed_step_says_why_in_its_cell() -> None:
    """Which table, and what the server said."""
    snapshot = make_snapshot()
    fill = snapshot.stages[2]
    failed = replace(fill.steps[0], state="failed", reason="duplicate key")
    stages = (
        *snapshot.stages[:2],
        replace(fill, state="failed", steps=(failed, *fill.steps[1:])),
        snapshot.stages[3],
    )
    assert "✗ duplicate key" in draw(replace(snapshot, state="failed", stages=stages))
    assert "users failed: duplicate key" in status_line(replace(snapshot, stages=stages))


def test_names_are_text_and_no_markup() -> None:
    """A table called [red] is a table called [red]."""
    assert "[red]x[/red]" in draw(make_snapshot(("[red]x[/red]",)))


def test_one_line_tells_the_same() -> None:
    """Without a terminal a line has where, how far, how fast, how long."""
    assert status_line(make_snapshot()) == (
        "shop: running; 3 of 7 steps; stage fill (3 of 4); backfill bot_id users 45 %, 45,000 of about"
        " 100,000 rows,"
        " 96,000 rows/s, time left 3.0 s"
    )


def test_lines_come_on_change_and_once_a_second() -> None:
    """A log that someone reads tomorrow does not say the same thing a thousand times; its last line is the
    end.
    """
    stream, clock = io.StringIO(), FixedClock()
    view = LiveView(Console(file=stream, width=80), clock=clock)
    snapshot = make_snapshot()
    for tick in range(40):
        clock.now = 100 + tick / 10
        view.update(replace(snapshot, reason=f"change {tick // 5}"))
    for _ in range(40):
        clock.now += 1
        view.update(replace(snapshot, reason="change 7"))
    view.update(replace(snapshot, state="done", reason=""))
    view.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[-1].startswith("shop: done")


def test_on_a_terminal_the_table_stays_in_place() -> None:
    """The live table is drawn over itself, and lines of others go above it."""
    stream = io.StringIO()
    view = LiveView(Console(file=stream, force_terminal=True, width=80, height=40))
    view.update(make_snapshot())
    view.stream.write("a line of the log\n")
    view.update(make_snapshot(state="done"))
    view.close()
    view.close()
    shown = stream.getvalue()
    assert "\x1b[1A" in shown  # the cursor goes up: redrawn, not scrolled
    assert shown.index("a line of the log") < shown.rindex("orders")


def test_where_not_all_fit_what_is_at_work_and_what_comes_next_is_seen() -> None:
    """A terminal of 20 lines and 300 tables: what is done needs no room."""
    tables = tuple(f"table_{n:03}" for n in range(300))
    snapshot = make_snapshot(tables)
    fill = snapshot.stages[2]
    done = tuple(replace(s, state="done", share_done=1.0) for s in fill.steps[:100])
    running = replace(fill.steps[0], table=tables[100])
    stage = replace(fill, steps=(*done, running, *fill.steps[101:]))
    shown = draw(replace(snapshot, stages=(*snapshot.stages[:2], stage, snapshot.stages[3])), height=20)
    names = [line.split()[0] for line in shown.splitlines() if line.startswith("table_")]
    assert names[:3] == ["table_100", "table_101", "table_102"]
    assert "more tables" in shown


SIZES = [(80, 24), (100, 30), (120, 40)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_tables_that_pass_move_and_wait_fit_a_terminal(width: int, height: int) -> None:
    """Running and waiting tables are on the screen, with all stages; the sentence is shown once, above."""
    shown = draw(make_crowd(ALL), width=width, height=height)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < height
    rows = {line.split()[0]: line for line in lines if "━━" in line or "──" in line}
    for table in ALL[20:24]:
        assert "45 % 96k/s 3.0 s" in rows[table]
    assert [rows[table].split()[-2] for table in ALL[24:27]] == ["locked", "locked", "held"]
    assert {line[-3:].strip() for line in rows.values()} == {"·"}  # the last stage has its column
    assert "38 of 112 steps  20 of 37 tables filled" in lines[0]
    assert sum(line.startswith("⏸") for line in lines) == 2
    assert f"public.{ALL[24]} is locked: pid 4711" in " ".join(shown.split())
    assert lines[-1].startswith("  and ")


def test_what_is_left_out_is_counted_by_its_state() -> None:
    """A table that has passed is not pending."""
    snapshot = make_crowd(ALL)
    lines = draw(snapshot, width=100, height=24).splitlines()
    shown = sum(line.endswith(" · ") for line in lines)
    assert lines[-1] == f"  and {38 - shown} more tables: {27 - shown} filled, 1 done, 10 pending"


def test_waits_of_one_kind_are_one_line() -> None:
    """Thirty tables that wait for their quiet time do not push the tables off the screen."""
    waiting = make_crowd(ALL, passed=0, moving=0, locked=30, held=0)
    lines = draw(waiting, width=80, height=24).splitlines()
    assert len(lines) < 24
    assert sum(line.startswith("⏸") for line in lines) == 1
    assert sum(line.startswith(ALL) for line in lines) > 10


def test_a_long_failure_stands_above_the_table() -> None:
    """Its cell is as wide as the others, and nothing of the sentence is lost."""
    snapshot = make_crowd(ALL[:5], passed=1, moving=2, locked=0, held=0)
    fill = snapshot.stages[2]
    failed = replace(fill.steps[1], state="failed", reason=LONG_REASON.format(ALL[1]))
    steps = (fill.steps[0], failed, *fill.steps[2:])
    shown = draw(
        replace(snapshot, stages=(*snapshot.stages[:2], replace(fill, steps=steps), snapshot.stages[3]))
    )
    assert LONG_REASON.format(ALL[1]) in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 100


def test_a_line_names_a_few_and_counts_the_rest() -> None:
    """In a pipe 37 tables are one line that a person still reads."""
    line = status_line(make_crowd(ALL))
    assert len(line) < 1_200
    assert "20 of 37 tables filled" in line
    assert (
        f"backfill bot_id {ALL[20]} 45 %, 45,000 of about 100,000 rows, 96,000 rows/s, time left 3.0 s"
        in line
    )
    assert "1 more at work" in line
    assert f"{ALL[24]} 45 %, 45,000 of about 100,000 rows, waiting" in line
    assert not any(f" {table} " in line for table in ALL[:20])


@pytest.mark.parametrize("width", range(30, 60))
def test_a_stage_and_its_mark_stay_on_one_line(width: int) -> None:
    """A mark alone at the start of a line belongs to no stage."""
    lines = draw(make_snapshot(), width=width).splitlines()
    for part in ("1 tables ✓", "2 columns ✓", "3 fill ▶", "4 swap ·"):
        assert any(part in line for line in lines)
