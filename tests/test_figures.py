"""Figures as people read them: the same number has the same text everywhere."""

from __future__ import annotations

import pytest

from online_migrate.figures import (
    bytes_text,
    count_text,
    percentile,
    seconds_text,
    share_text,
    short_count_text,
    short_seconds_text,
)


def test_a_percentile_is_one_of_the_values() -> None:
    """Nearest rank, of values in any order; None if there are no values."""
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert percentile([3.0, 1.0], 0.0) == 1.0
    assert percentile([], 0.5) is None


@pytest.mark.parametrize(
    ("seconds", "text", "short"),
    [
        (0.045, "45 ms", "45 ms"),
        (3.24, "3.2 s", "3.24 s"),
        (59.4, "59 s", "59.4 s"),
        (125.0, "2 min 05 s", "2.08 min"),
        (600.0, "10 min 00 s", "10 min"),
        (11_220.0, "3 h 07 min", "3.12 h"),
        (90_000.0, "1 d 01 h", "25 h"),
    ],
)
def test_seconds(seconds: float, text: str, short: str) -> None:
    """A measured time in two units, a limit in one."""
    assert seconds_text(seconds) == text
    assert short_seconds_text(seconds) == short


def test_what_is_unknown_has_a_text() -> None:
    """No figure is made up where there is none."""
    assert [seconds_text(None), count_text(None), short_count_text(None), share_text(None)] == [
        "n/a",
        "?",
        "?",
        "",
    ]


def test_bytes_counts_and_shares() -> None:
    """Bytes by powers of 1024 as plans have them; 100 % only for all."""
    assert [bytes_text(n) for n in (900, 67_108_864, 1.5 * 2**30)] == ["900 B", "64 MiB", "1.5 GiB"]
    assert [count_text(96_000), short_count_text(96_000), short_count_text(1_240_000)] == [
        "96,000",
        "96k",
        "1.2M",
    ]
    assert [share_text(0.999), share_text(1.0)] == ["99 %", "100 %"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0451, "45 ms"), (9.97, "10 s"), (59.6, "1 min 00 s"), (190_000, "2 d 04 h")]
)
def test_seconds_are_rounded_into_the_next_unit(seconds: float, text: str) -> None:
    """No text is `60 s` or `10.0 s`, whatever is rounded."""
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (950, "950"), (9_949, "9949"), (9_950, "10k"), (999_600, "1.0M"), (5e9, "5.0G")],
)
def test_short_counts_fit_a_cell(count: float, text: str) -> None:
    """A rate takes at most five characters in the live table."""
    assert short_count_text(count) == text
    assert len(text) <= 5


def test_the_percentile_of_a_hundred_values() -> None:
    """Of a hundred values p99 is the ninety-ninth."""
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
