"""From a plan's hold_when to throttlers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from online_migrate.backfill.throttlers import throttlers_for
from online_migrate.plan.model import HoldWhen

QUERY = {"name": "queue", "sql": "SELECT 1", "limit": 5.0, "timeout": "100ms"}


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("standby_lag", "64MiB", "standby_lag"),
        ("standby_delay", "10s", "standby_lag"),
        ("wal_since_checkpoint", "80%", "wal_since_checkpoint"),
        ("oldest_snapshot", "10min", "oldest_snapshot"),
        ("wal_held", "10GiB", "wal_held"),
        ("lock_waiters", 5, "lock_waiters"),
        ("commit_latency", "100ms", "commit_latency"),
        ("multixact_age", "80%", "multixacts"),
        ("multixact_members", "40%", "multixacts"),
        ("queries", [QUERY], "query_queue"),
    ],
)
def test_each_key_has_its_throttler(key: str, value: Any, name: str) -> None:
    """What a plan names is watched, and nothing else is."""
    hold_when = HoldWhen.model_validate({key: value})
    assert [t.name for t in throttlers_for(hold_when)] == [name]


def test_no_key_is_forgotten() -> None:
    """A key of the plan that no throttler reads would be a promise that is not kept."""
    keys = {mark[0] for mark in test_each_key_has_its_throttler.pytestmark[0].args[1]}
    assert keys == set(HoldWhen.model_fields)


def test_nothing_named_is_nothing_watched() -> None:
    """An empty hold_when holds for nothing."""
    assert throttlers_for(HoldWhen()) == ()


def test_two_queries_of_one_name_are_refused() -> None:
    """Their readings could not be distinguished in a log or on a dashboard."""
    with pytest.raises(ValidationError, match="queries names queue twice"):
        HoldWhen.model_validate({"queries": [QUERY, QUERY]})
