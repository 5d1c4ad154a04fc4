"""The curve of rows per second, and the times in which it held back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_migrate import events as e
from online_migrate.observe.page.throughput import (
    BUCKETS,
    Work,
    draw_curve,
    find_holds,
    find_work,
    recent_rate,
)
from tests.observe.made_runs import BACKFILL, NOON, make_record, make_snapshot, started

PLACE: dict[str, Any] = dict(zip(("stage", "step", "table"), BACKFILL, strict=True))


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def work(begin: float, end: float, rows: int) -> Work:
    return Work(begins_at=after(begin), ends_at=after(end), rows=rows)


def summed(rows: int, rows_done: int) -> e.Throughput:
    """Ten seconds of batches and pauses."""
    return e.Throughput(
        **PLACE, rows=rows, batches=9, pages=9, worked_s=5, paused_s=5, rows_done=rows_done, share_done=0.1
    )


def test_a_sum_of_batches_is_spread_over_the_time_that_it_took() -> None:
    """The journal keeps a sum every ten seconds; the curve shows a rate, not spikes."""
    history = [make_record(started(), NOON), make_record(summed(1_000, 1_000), after(10))]
    curve = draw_curve(find_work(history))
    assert curve is not None
    assert curve.rates[:10] == pytest.approx([100] * 10)


def test_what_came_since_the_last_sum_is_shown_at_once() -> None:
    """Figures move every second, not every ten."""
    history = [make_record(started(), NOON)]
    (step,) = [s for s in make_snapshot().steps if s.key == BACKFILL]
    assert find_work(history, [step], after(3)) == (work(0, 3, 45_000),)


rows_of_work = st.lists(
    st.builds(lambda begin, length, rows: work(begin, begin + length, rows),
              st.floats(0, 90_000), st.floats(0.001, 5_000), st.integers(0, 10**6)),
    min_size=1, max_size=20,
)  # fmt: skip


@given(rows_of_work)
def test_no_row_is_lost_or_made_up(all_work: Sequence[Work]) -> None:
    """Rate times time is rows, whatever the buckets; and a page gets few enough points to draw."""
    curve = draw_curve(all_work)
    assert curve is not None
    assert len(curve.rates) <= BUCKETS
    rows = sum(rate * curve.bucket_s for rate in curve.rates[:-1])
    last = (curve.ends_at - curve.begins_at).total_seconds() - curve.bucket_s * (len(curve.rates) - 1)
    rows += curve.rates[-1] * max(last, 0.05 * curve.bucket_s)
    assert rows == pytest.approx(sum(w.rows for w in all_work), rel=1e-3, abs=1e-3)


def test_a_curve_goes_on_while_nothing_is_written() -> None:
    """A hold is seen as a rate of nothing, not as the end of the curve."""
    curve = draw_curve([work(0, 10, 1_000)], until=after(40))
    assert curve is not None
    assert curve.rates[-20:] == (0.0,) * 20


def test_only_the_last_hour_is_shown_on_the_page() -> None:
    """A night's curve in one picture says nothing of now."""
    curve = draw_curve([work(0, 10, 1_000), work(10_000, 10_010, 500)], longest_s=3_600)
    assert curve is not None
    assert curve.begins_at >= after(10_010 - 3_700)
    assert sum(curve.rates) * curve.bucket_s == pytest.approx(500, rel=0.2)


def test_no_work_has_no_curve_and_no_rate() -> None:
    """Nothing is drawn where nothing is known."""
    assert draw_curve([]) is None
    assert recent_rate([], NOON) is None
    assert recent_rate([work(0, 0.3, 900)], after(0.3)) is None


def test_the_rate_of_now_is_that_of_the_last_ten_seconds() -> None:
    """Small tables come and go between two looks: the rate is measured over all of them."""
    done = [work(0, 100, 10**6), work(100, 105, 500), work(105, 110, 1_000)]
    assert recent_rate(done, after(110)) == pytest.approx(150)


def test_a_hold_ends_with_its_wait_its_step_or_its_run() -> None:
    """The end of what waited ends the wait, even if no event says so."""
    wait = e.WaitStarted(**PLACE, kind="standby_lag", reason="71 MiB behind")
    other = e.WaitStarted(**PLACE, kind="blocker", reason="pid 12")
    history = [
        make_record(wait, after(0)),
        make_record(other, after(1)),
        make_record(e.WaitEnded(**PLACE, kind="standby_lag", seconds=2), after(2)),
        make_record(e.StepEnded(**PLACE, outcome="done", seconds=9), after(3)),
        make_record(wait, after(4)),
        make_record(e.Reconnected(seconds=1), after(5)),
        make_record(wait, after(6)),
        make_record(e.StepStarted(**PLACE, resumed=True), after(7)),
        make_record(wait, after(8)),
    ]
    holds = find_holds(history, is_live=True)
    assert [(h.kind, h.ends_at) for h in holds] == [
        ("standby_lag", after(2)),
        ("blocker", after(3)),
        ("standby_lag", after(5)),
        ("standby_lag", after(7)),
        ("standby_lag", None),
    ]
    assert holds[0].reason == "71 MiB behind"
    assert holds[0].place == "fill / backfill bot_id / users"


def test_the_time_without_a_runner_is_not_held() -> None:
    """Killed at two while it held, and resumed at nine: it held until it was last heard of, not for seven
    hours.
    """
    wait: dict[str, Any] = {**PLACE, "kind": "standby_lag"}
    resumed = e.RunStarted(plan="shop", run_id=1, resumed=True, steps_total=1, steps_done=0)
    held = [
        make_record(e.WaitStarted(**wait, reason="71 MiB behind"), after(0)),
        make_record(e.WaitContinues(**wait, reason="90 MiB behind", seconds=10), after(10)),
    ]
    again = [
        make_record(e.CheckFound(severity="warn", fact="x"), after(25_000)),
        make_record(resumed, after(25_001)),
    ]
    for history, is_live in ([*held, *again], True), (held, False):
        (hold,) = find_holds(history, is_live=is_live)
        assert (hold.begins_at, hold.ends_at, hold.reason) == (after(0), after(10), "90 MiB behind")
    assert find_holds(held, is_live=True)[0].ends_at is None
