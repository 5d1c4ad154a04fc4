"""Figures and events in words."""

from __future__ import annotations

import pytest

from online_migrate import events as e
from online_migrate.observe.words import count_text, describe, seconds_text, share_text, short_count
from tests.observe.made_runs import make_record, whole_run

KINDS = [k for k in vars(e).values() if isinstance(k, type) and issubclass(k, e.Event) and k is not e.Event]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "n/a"), (0.0451, "45 ms"), (3.21, "3.2 s"), (9.97, "10 s"), (59.6, "1 min 00 s"),
        (125, "2 min 05 s"), (11_220, "3 h 07 min"), (190_000, "2 d 04 h"),
    ],
)  # fmt: skip
def test_seconds_read_well_at_every_size(seconds: float | None, text: str) -> None:
    """One unit too many is noise, one too few is a lie; unknown is said."""
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "?"), (0, "0"), (950, "950"), (9_949, "9949"), (9_950, "10k"), (96_400, "96k"), (1_234_567, "1.2M"),
     (999_600, "1.0M"), (5e9, "5.0G")],
)  # fmt: skip
def test_short_counts_fit_a_cell(count: float | None, text: str) -> None:
    """A rate takes at most five places in the live table."""
    assert short_count(count) == text
    assert len(short_count(count)) <= 5


def test_a_share_is_never_rounded_up_to_all() -> None:
    """100 % means that nothing is left."""
    assert share_text(0.999) == "99 %"
    assert share_text(1.0) == "100 %"
    assert share_text(None) == ""


def test_counts_show_their_thousands() -> None:
    """Seven digits in a row cannot be read."""
    assert count_text(1_234_567) == "1,234,567"


def test_every_event_has_a_sentence_of_its_own() -> None:
    """Nobody should have to read ``kind=… reason=…`` at three in the morning."""
    told = {type(event): describe(event.name, make_record(event).fields) for event in whole_run()}
    assert set(told) == set(KINDS) - {e.TablesMeasured, e.Throughput}
    for kind, sentence in told.items():
        bare = kind.__name__.lower()
        assert sentence.strip()
        assert sentence.replace(" ", "") != bare


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_is_had_without_any_field(kind: type[e.Event]) -> None:
    """The history of an older version, with other fields, must not break a page."""
    assert describe(kind.__new__(kind).name, {})


@pytest.mark.parametrize(
    ("phase", "share", "text"),
    [
        ("building index", 0.42, "CREATE: building index, 42 %, for 3.0 s"),
        ("proving", None, "CREATE: proving, for 3.0 s"),
        ("", None, "CREATE: for 3.0 s"),
    ],
)
def test_of_a_statement_that_takes_long_only_what_is_known_is_said(
    phase: str, share: float | None, text: str
) -> None:
    """VALIDATE has no phase, a proof has no share."""
    assert (
        describe(
            "long_statement", {"statement": "CREATE", "phase": phase, "share_done": share, "seconds": 3.0}
        )
        == text
    )


def test_an_unknown_event_keeps_its_name() -> None:
    """A newer runner's events are shown by an older reader."""
    assert describe("moon_rise", {}) == "moon rise"
