"""How far and how fast a backfill is: figures that are measured, or none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from online_migrate.events import Throughput
from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.snapshot.estimates import UNKNOWN, Point, pace_of, points_of, share_of
from tests.observe.made_runs import BACKFILL, NOON, make_cursor, make_record, started


def seconds_later(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("place", "share"),
    [
        pytest.param({}, 0.0, id="start"),
        pytest.param({"chunk": 200, "slice": 200}, 0.2, id="two chunks"),
        pytest.param({"chunk": 200, "slice": 200, "stripe": 2}, 0.25, id="half of the stripes of a chunk"),
        pytest.param({"chunk": 200, "slice": 250, "stripe": 2}, 0.2625, id="half of a stripe more"),
        pytest.param({"chunk": 1_000, "slice": 1_000}, 1.0, id="end"),
        pytest.param({"pages_total": 0}, 1.0, id="an empty table"),
        pytest.param({"pass_name": "sweep"}, 1.0, id="the sweep, after all pages"),
    ],
)
def test_the_share_counts_every_walk_over_a_page(place: dict[str, object], share: float) -> None:
    """A table is at 50 % when half of the work on it is done, not when its pages were seen once of four
    times.
    """
    assert share_of(make_cursor(**place)) == pytest.approx(share)


def summed(rows_done: int, share: float, at_s: float) -> HistoryRecord:
    event = Throughput(
        stage=BACKFILL[0], step=BACKFILL[1], table=BACKFILL[2], rows=1, batches=1, pages=1, worked_s=1, paused_s=1,
        rows_done=rows_done, share_done=share,
    )  # fmt: skip
    return make_record(event, NOON + seconds_later(at_s))


def test_rate_and_time_left_are_measured_over_the_last_seconds() -> None:
    """What was fast an hour ago says nothing about now: the newest point a window back is the base."""
    history = [
        make_record(started()),
        summed(1_000, 0.10, 10),
        summed(2_000, 0.20, 90),
        summed(2_500, 0.25, 105),
    ]
    cursor = make_cursor(chunk=300, slice=300, rows_done=3_000, moved_at=NOON + seconds_later(110))
    pace = pace_of(cursor, points_of(history)[BACKFILL], NOON + seconds_later(111))
    assert pace.rate == pytest.approx(1_000 / 20)
    assert pace.eta_s == pytest.approx(0.7 / (0.1 / 20))


def test_a_pass_that_begins_again_forgets_the_points_of_the_one_before() -> None:
    """A table that was rewritten starts again; its rate is not measured across the break."""
    again = make_record(started(rows_done=900), NOON + seconds_later(50))
    points = points_of([make_record(started()), summed(900, 0.9, 10), again])[BACKFILL]
    assert points == (Point(at=again.at, rows_done=900, share_done=0.0),)


@pytest.mark.parametrize(
    ("moved_s", "now_s", "why"),
    [
        pytest.param(60, 90, "stands still", id="stale"),
        pytest.param(0.05, 0.1, "no measure yet", id="too early"),
    ],
)
def test_no_time_left_is_made_up(moved_s: float, now_s: float, why: str) -> None:
    """An invented figure is worse than none, at night above all."""
    cursor = make_cursor(chunk=300, slice=300, rows_done=3_000, moved_at=NOON + seconds_later(moved_s))
    points = points_of([make_record(started())])[BACKFILL]
    assert pace_of(cursor, points, NOON + seconds_later(now_s)) == UNKNOWN, why


def test_without_history_nothing_is_known() -> None:
    """A journal whose events were lost still gives a snapshot."""
    assert pace_of(make_cursor(moved_at=NOON), (), NOON) == UNKNOWN


def test_a_table_that_has_passed_has_no_rate_and_no_end() -> None:
    """Its pass was a moment ago, and no worker may be on it; how long the proof takes is known when it
    is over.
    """
    cursor = make_cursor(pass_name="sweep", rows_done=100, moved_at=NOON + seconds_later(10))
    pace = pace_of(cursor, points_of([make_record(started())])[BACKFILL], NOON + seconds_later(10))
    assert (pace.rate, pace.eta_s) == (None, None)
