"""Expressions that the panels share: selectors by the dashboard's variables.

A runner's exporter goes with it, and Prometheus forgets its series at the next scrape: a single figure asks for :func:`last`,
for it is needed most when the runner is gone.
"""

from __future__ import annotations

from typing import Final

PLAN: Final = 'plan="$plan"'
STAGE: Final = f'{PLAN}, stage=~"$stage"'
TABLE: Final = f'{STAGE}, table=~"$table"'
PLAN_TABLE: Final = f'{PLAN}, table=~"$table"'
REMEMBERED: Final = "1d"
"""for how long a figure outlives its runner; the alerts on its end do so as long"""


def metric(name: str, labels: str = PLAN) -> str:
    """``online_migrate_<name>{…}``."""
    return f"online_migrate_{name}{{{labels}}}"


def last(name: str, labels: str = PLAN) -> str:
    """What the runner says; where none is there, the last words of the one that began last, and of no earlier one."""
    said, began = metric(name, labels), metric("run_start_time_seconds")
    newest = f"topk(1, last_over_time({began}[{REMEMBERED}]))"
    words = f"last_over_time({said}[{REMEMBERED}]) and on (job, instance) {newest} unless on (plan) {began}"
    return f"({said} or {words})"


def is_ended() -> str:
    """Whether that runner came to an end of its own, by which there are no news to be had of it any more."""
    return f"on (job, instance) {last('run_end_time_seconds')} > 0"


def rate(name: str, labels: str = PLAN) -> str:
    """How fast a counter grows."""
    return f"rate({metric(name, labels)}[$__rate_interval])"


def quantile(share: float, name: str, labels: str, by: str = "") -> str:
    """Below what so many of a histogram's values were, of the whole run of this process."""
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) ({metric(f'{name}_bucket', labels)}))"
