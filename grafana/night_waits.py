"""The overview for the night: why the run waits, and which sessions block it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from grafana.panels import Spec, Steps, bars, texts, time_series, timeline, words
from grafana.queries import PLAN_TABLE, STAGE, TABLE, last, metric, rate

Panels = Iterable[Any]
"""builders of panels; those of the SDK have no common type of their own"""
ORANGE_FROM_ONE: Final[Steps] = [(None, "green"), (1.0, "orange")]


def waiting() -> Panels:
    """Why does it wait?"""
    yield timeline(
        Spec(
            "Waits",
            "Open waits by kind: a session that blocks a lock, a throttler at its limit, a row lock.",
            {"{{kind}}": f"sum by (kind) ({metric('waits_open')}) > bool 0"},
            size=(12, 7),
            mappings=words({0: ("working", "green"), 1: ("waiting", "orange")}),
            runbook="held-for-long",
        )
    )
    yield time_series(
        Spec(
            "Throttlers",
            "Utilisation that each throttler reads. At 100 % and above it holds the backfill.",
            {"{{throttler}}": metric("throttler_utilisation_ratio")},
            unit="percentunit",
            size=(12, 7),
            low=0,
            steps=[(None, "green"), (0.8, "orange"), (1.0, "red")],
            runbook="held-for-long",
        )
    )
    yield texts(
        Spec(
            "Reasons of the waits",
            "The reason of each open wait, without its figures; the status page has them.",
            {"": metric("wait_reason_info")},
            size=(12, 6),
            runbook="held-for-long",
        ),
        {"kind": "Kind", "reason": "Reason"},
    )
    yield texts(
        Spec(
            "Reasons of the throttlers",
            "The last report of each throttler, without its figures.",
            {"": metric("throttler_reason_info")},
            size=(12, 6),
        ),
        {"throttler": "Throttler", "reason": "Report"},
    )
    yield time_series(
        Spec(
            "Share of time waited",
            "Share of the time in which a wait of the kind was open.",
            {"{{kind}}": f"sum by (kind) ({rate('wait_seconds_total')})"},
            unit="percentunit",
            size=(24, 6),
            low=0,
            high=1,
            steps=[(None, "green"), (0.9, "red")],
            runbook="held-for-long",
        )
    )


def blockers() -> Panels:
    """Which sessions block it?"""
    yield texts(
        Spec(
            "Blocking sessions",
            "Sessions that block a lock or a long statement now. Literals in their statements are left out.",
            {"": metric("blocker_info", STAGE)},
            size=(16, 8),
            runbook="blockers",
        ),
        {"step": "Step", "blocker": "Session"},
    )
    yield time_series(
        Spec(
            "Number of blocking sessions",
            "Sessions that blocked each step at the last check.",
            {"{{step}}": metric("blockers", STAGE)},
            unit="short",
            low=0,
            decimals=0,
            steps=ORANGE_FROM_ONE,
            runbook="blockers",
        )
    )
    yield time_series(
        Spec(
            "Failed lock attempts",
            "Lock requests that timed out; each was rolled back and retried later. Each process counts"
            " from zero.",
            {"{{step}}": f"sum by (step) ({metric('lock_attempts_failed_total', STAGE)})"},
            unit="short",
            low=0,
            decimals=0,
            runbook="exposure-spent",
        )
    )
    yield bars(
        Spec(
            "Exposure by table",
            "Time in which application statements could have waited behind our lock requests: the ten"
            " worst tables of this process.",
            {"{{table}}": f"topk(10, sum by (table) ({last('lock_exposure_seconds_total', PLAN_TABLE)}))"},
            unit="s",
            low=0,
            runbook="exposure-spent",
        )
    )
    yield time_series(
        Spec(
            "Long statements",
            "Progress of concurrent index builds and VACUUM. They block no application statements.",
            {"{{step}} {{table}}": metric("long_statement_done_ratio", TABLE)},
            unit="percentunit",
            low=0,
            high=1,
        )
    )
