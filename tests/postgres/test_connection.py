"""Who lets us in, and whom we talk to."""

from __future__ import annotations

import pytest

from online_migrate.errors import PreflightFailed
from online_migrate.postgres.connection import ensure_direct, ensure_supported, version_text


@pytest.mark.parametrize("version", [130020, 140000, 140003])
def test_a_server_older_than_14_4_is_refused(version: int) -> None:
    """14.0 to 14.3 corrupt concurrently built indexes under heap-only pruning."""
    with pytest.raises(PreflightFailed, match=f"PostgreSQL {version_text(version)}; 14.4 is the oldest"):
        ensure_supported(version)


@pytest.mark.parametrize("version", [140004, 140020, 150000, 180001])
def test_a_server_from_14_4_on_is_supported(version: int) -> None:
    """Nothing newer is refused by its number."""
    ensure_supported(version)


def test_a_pooler_is_known_by_the_process_that_answers() -> None:
    """A pooler hands out a process id of its own: advisory locks and settings would belong to whoever comes next."""
    ensure_direct(4711, 4711)
    with pytest.raises(PreflightFailed, match="4712, the pooler had said 4711") as caught:
        ensure_direct(4711, 4712)
    assert "straight to PostgreSQL" in caught.value.remedy
