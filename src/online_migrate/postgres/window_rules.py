"""The bounds of a lock window, as the plan gives them."""

from __future__ import annotations

from dataclasses import dataclass

from online_migrate.postgres.blocker_policy import BlockerPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRules:
    """Bounds; seconds."""

    lock_wait_s: float = 1800.0
    """from the beginning of a window to its end, waiting outside the queue included"""
    blocker_age_s: float = 0.2
    attempts: int = 60
    hold_cap_s: float = 1.0
    exposure_s: float = 30.0
    """of one relation, over the run"""
    exposure_run_s: float = 120.0
    """of all relations together, over the run"""
    policy: BlockerPolicy | None = None
