"""The ladder's figures: properties over all bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_migrate.postgres.ladder import FIRST_TIMEOUT_S, REST_S, Exposure, Ladder, parse_milliseconds

TIMES = st.floats(0.01, 100.0)


def test_the_rungs() -> None:
    """From 50 ms to 0.8 × deadlock_timeout, each half as long again."""
    ladder = Ladder(deadlock_timeout_s=1.0, hold_cap_s=1.0)
    rungs = [ladder.timeout_s(n, 30.0) for n in range(1, 10)]
    assert rungs[:4] == pytest.approx([0.05, 0.075, 0.1125, 0.16875])
    assert rungs[-1] == pytest.approx(0.8)


@given(TIMES, TIMES, st.integers(1, 10_000), st.floats(0.0, 100.0))
def test_no_rung_is_as_long_as_deadlock_timeout(
    deadlock_s: float, cap_s: float, attempt: int, left_s: float
) -> None:
    """Whatever the bounds: shorter than deadlock_timeout, than the cap, and than
    what is left of the budget.
    """
    ladder = Ladder(deadlock_timeout_s=deadlock_s, hold_cap_s=cap_s)
    timeout_s = ladder.timeout_s(attempt, left_s)
    assert timeout_s <= min(0.8 * deadlock_s, cap_s, left_s)
    assert ladder.timeout_s(1, left_s) <= FIRST_TIMEOUT_S
    assert ladder.further_s <= 0.25 * deadlock_s
    assert timeout_s >= ladder.timeout_s(max(attempt - 1, 1), left_s), "it never goes down again"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=30))
def test_exposure_is_kept_by_relation_and_in_all(tries: list[tuple[str, float]]) -> None:
    """Each table has its own budget, the run has one over all, and neither is ever below nothing."""
    exposure = Exposure()
    for relation, seconds in tries:
        exposure.add([relation], seconds)
    spent = sum(s for r, s in tries if r == "a")
    assert exposure.left_s(["a"], per_relation_s=30.0, in_all_s=1e9) == pytest.approx(max(30.0 - spent, 0.0))
    assert exposure.left_s([], per_relation_s=30.0, in_all_s=40.0) <= 30.0
    assert exposure.total_s == pytest.approx(sum(s for _, s in tries))


def test_windows_on_one_relation_rest_in_between() -> None:
    """The next question for the same relation comes REST_S after the last release, for another at once."""
    exposure = Exposure()
    exposure.note_released(["a"], now=10.0)
    assert exposure.rest_s(["a", "b"], now=10.0) == pytest.approx(REST_S)
    assert exposure.rest_s(["a"], now=10.0 + REST_S) == 0
    assert exposure.rest_s(["b"], now=10.0) == 0


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("1s", 1000.0), ("500ms", 500.0), ("250", 250.0), ("1min", 60000.0), ("x", None)],
)
def test_times_of_postgresql_conf(text: str, milliseconds: float | None) -> None:
    """deadlock_timeout of a role is read with whatever unit it was written in."""
    assert parse_milliseconds(text) == milliseconds
