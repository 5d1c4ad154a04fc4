"""`hours` of a plan: within them or not, and when they begin next."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from online_migrate.plan.hours import Hours


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "now", "opens_at"),
    [
        ("22:00-06:00 UTC", "2026-01-10 23:00", None),
        ("22:00-06:00 UTC", "2026-01-10 05:59", None),
        ("22:00-06:00 UTC", "2026-01-10 06:00", "2026-01-10 22:00"),
        ("22:00-06:00 UTC", "2026-01-10 22:00", None),
        ("01:00-05:30 UTC", "2026-01-10 00:30", "2026-01-10 01:00"),
        ("01:00-05:30 UTC", "2026-01-10 05:30", "2026-01-11 01:00"),
        ("01:00-05:30 Europe/Berlin", "2026-01-10 00:30", None),
        ("01:00-05:30 Europe/Berlin", "2026-01-10 04:30", "2026-01-11 00:00"),
        ("01:00-05:30 Europe/Berlin", "2026-07-10 03:30", "2026-07-10 23:00"),
    ],
)
def test_when_they_begin(hours: str, now: str, opens_at: str | None) -> None:
    assert Hours.parse(hours).opens_at(at(now)) == (None if opens_at is None else at(opens_at))
    assert str(Hours.parse(hours)) == hours


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("22-6", "expected the form 22:00-06:00 Europe/Berlin"),
        ("22:00-24:00 UTC", "expected the form"),
        ("22:00-22:00 UTC", "begin and end at the same time"),
        ("22:00-06:00 Europe/Nowhere", "unknown time zone Europe/Nowhere"),
        ("22:00-06:00 Europe", "unknown time zone Europe"),
    ],
)
def test_what_they_cannot_be(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Hours.parse(text)
