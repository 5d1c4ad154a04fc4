"""Figures and events in words."""

from __future__ import annotations

import pytest

from online_migrate import events as e
from online_migrate.observe.words import describe
from tests.observe.made_runs import make_record, whole_run

KINDS = [k for k in vars(e).values() if isinstance(k, type) and issubclass(k, e.Event) and k is not e.Event]


def test_every_event_has_a_sentence_of_its_own() -> None:
    """No operator should have to read ``kind=… reason=…`` at three in the morning."""
    reported = {type(event): describe(event.name, make_record(event).fields) for event in whole_run()}
    assert set(reported) == set(KINDS) - {e.TablesMeasured, e.Throughput}
    for kind, sentence in reported.items():
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
