"""Durations, sizes and shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_migrate.plan.units import (
    LONGEST,
    read_bytes,
    read_seconds,
    read_share,
    write_bytes,
    write_seconds,
    write_share,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("1.5 s", 1.5), ("30min", 1800.0), ("2h", 7200.0), ("1d", 86400.0), ("250us", 0.00025)],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    """The unit that is written is the unit that is meant."""
    assert read_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 * 2**20), ("1kB", 1000), ("1 KiB", 1024), ("1.5GB", 1_500_000_000), ("7B", 7)],
)
def test_a_size_tells_thousands_from_powers_of_two(text: str, size: int) -> None:
    """MB and MiB are both understood, and not the same."""
    assert read_bytes(text) == size


@pytest.mark.parametrize(
    "value", ["", "5", 5, 0.5, None, True, "ms", "-1ms", "1 m", "1M", "5 %s", "1e3s", "٣s", ["1s"]]
)
def test_what_has_no_clear_unit_is_refused(value: object) -> None:
    """A plan never leaves open whether a bare number means seconds or milliseconds."""
    for read in (read_seconds, read_bytes, read_share):
        with pytest.raises(ValueError, match="expected the form"):
            read(value)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_seconds, "0s"),
        (read_seconds, "25d"),
        (read_bytes, "0B"),
        (read_bytes, "9999999TiB"),
        (read_share, "0%"),
        (read_share, "101%"),
    ],
)
def test_what_postgresql_cannot_take_or_nobody_can_mean_is_refused(read: object, text: str) -> None:
    """A timeout of nothing, one beyond an int4 of milliseconds, more than the whole."""
    assert callable(read)
    with pytest.raises(ValueError, match="must be from"):
        read(text)


@given(st.floats(1e-6, LONGEST))
def test_a_duration_is_written_as_it_would_be_read(seconds: float) -> None:
    """What a message or the schema shows can be pasted into a plan."""
    assert math.isclose(read_seconds(write_seconds(seconds)), seconds, rel_tol=1e-6, abs_tol=1e-12)


@given(st.integers(1, 2**50))
def test_a_size_is_written_as_it_would_be_read(size: int) -> None:
    """Sizes come back to the byte."""
    assert read_bytes(write_bytes(size)) == size


@given(st.floats(1e-3, 1))
def test_a_share_is_written_as_it_would_be_read(share: float) -> None:
    """So do shares."""
    assert math.isclose(read_share(write_share(share)), share, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (write_seconds(0.05), "50ms"),
        (write_seconds(600.0), "10min"),
        (write_seconds(86_400.0), "1d"),
        (write_bytes(64 * 2**20), "64MiB"),
        (write_share(0.5), "50%"),
    ],
)
def test_the_largest_whole_unit_is_written(written: str, expected: str) -> None:
    """People read 10min, not 600000000us."""
    assert written == expected
