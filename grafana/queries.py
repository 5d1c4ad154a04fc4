"""Expressions that the panels share: selectors by the dashboard's variables."""

from __future__ import annotations

from typing import Final

PLAN: Final = 'plan="$plan"'
STAGE: Final = f'{PLAN}, stage=~"$stage"'
TABLE: Final = f'{STAGE}, table=~"$table"'
PLAN_TABLE: Final = f'{PLAN}, table=~"$table"'


def metric(name: str, labels: str = PLAN) -> str:
    """``online_migrate_<name>{…}``."""
    return f"online_migrate_{name}{{{labels}}}"


def rate(name: str, labels: str = PLAN) -> str:
    """How fast a counter grows."""
    return f"rate({metric(name, labels)}[$__rate_interval])"


def quantile(share: float, name: str, labels: str, by: str = "") -> str:
    """Below what so many of a histogram's values were, of the whole run of this process."""
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) ({metric(f'{name}_bucket', labels)}))"
