"""The age of a position."""

from __future__ import annotations

import pytest

from online_migrate.backfill.throttlers.trail import Trail


def test_a_position_is_as_old_as_the_last_time_it_was_current() -> None:
    """The counter was 10 until second 5: what has come to 10 only is behind since then."""
    trail = Trail(keep_s=60)
    for at_s, position in [(0, 10), (5, 10), (6, 20), (7, 30)]:
        trail.note(at_s, position)
    assert trail.age_s(9, 10) == 4
    assert trail.age_s(9, 25) == 3
    assert trail.age_s(9, 30) == 2


def test_what_was_old_before_we_looked_is_at_least_as_old_as_our_first_look() -> None:
    """We never say that something is young for want of memory."""
    trail = Trail(keep_s=60)
    assert trail.age_s(3, 5) == 0
    trail.note(3, 100)
    assert trail.age_s(63, 5) == 60


def test_a_trail_stays_small() -> None:
    """Asked once a second for a day, it keeps a bounded number of positions and still reaches back as
    promised.
    """
    trail = Trail(keep_s=3600)
    for second in range(86_400):
        trail.note(second, second)
    assert len(trail._seen) <= 1000
    assert trail.age_s(86_400, 86_400 - 3600) == pytest.approx(3600, rel=0.01)
