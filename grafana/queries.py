"""Expressions that the panels share: selectors by the dashboard's variables.

The exporter ends with its runner, and Prometheus drops its series at the next scrape.  Single figures
therefore ask for :func:`last`: they are needed most after the runner has ended.
"""

from __future__ import annotations

from typing import Final

PLAN: Final = 'plan="$plan"'
STAGE: Final = f'{PLAN}, stage=~"$stage"'
TABLE: Final = f'{STAGE}, table=~"$table"'
PLAN_TABLE: Final = f'{PLAN}, table=~"$table"'
REMEMBERED: Final = "1d"
"""for so long a figure is shown after its runner has ended; so are the alerts on the end"""


def metric(name: str, labels: str = PLAN) -> str:
    """``online_migrate_<name>{…}``."""
    return f"online_migrate_{name}{{{labels}}}"


def last(name: str, labels: str = PLAN) -> str:
    """What the runner reports; without a runner, the last values of the one that started last."""
    value, started = metric(name, labels), metric("run_start_time_seconds")
    newest = f"topk(1, last_over_time({started}[{REMEMBERED}]))"
    earlier = (
        f"last_over_time({value}[{REMEMBERED}]) and on (job, instance) {newest} unless on (plan) {started}"
    )
    return f"({value} or {earlier})"


def is_ended() -> str:
    """Whether that runner ended by itself, so that it reports nothing any more."""
    return f"on (job, instance) {last('run_end_time_seconds')} > 0"


def rate(name: str, labels: str = PLAN) -> str:
    """How fast a counter grows."""
    return f"rate({metric(name, labels)}[$__rate_interval])"


def quantile(share: float, name: str, labels: str, by: str = "") -> str:
    """A quantile of a histogram, over the whole run of this process."""
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) ({metric(f'{name}_bucket', labels)}))"
