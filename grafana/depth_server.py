"""The details of the server: standbys and WAL, growth, the application, and what the runner costs."""

from __future__ import annotations

from typing import Final

from grafana.night import HALF
from grafana.night_waits import Panels
from grafana.panels import Spec, bars, time_series
from grafana.queries import PLAN_TABLE, last, metric, rate
from online_migrate.observe.prometheus.readings import EVERY_S

EXPORTER: Final = "From postgres_exporter, for the server and database chosen above; empty without it."
EXPORTERS: Final = {
    "server": ("Server", "label_values(pg_stat_database_xact_commit, instance)"),
    "database": ("Database", 'label_values(pg_stat_database_xact_commit{instance="$server"}, datname)'),
}
"""chosen by the reader: a Prometheus may scrape many servers, and our metrics do not say which is ours"""
DATABASE: Final = '{instance="$server", datname="$database"}'
OF_PLAN: Final = f"* on (job, instance) group_left (plan) {metric('build_info')}"
"""the metrics of the process have no plan label"""


def standbys() -> Panels:
    """How are standbys and WAL?"""
    yield time_series(
        Spec(
            "Lag in bytes",
            "WAL that each streaming standby has not replayed yet, and the smallest limit in the plan.",
            {"{{standby}}": metric("standby_lag_bytes"), "limit": metric("standby_lag_budget_bytes")},
            unit="bytes",
            size=(6, 8),
            low=0,
            runbook="standby-lag",
        )
    )
    yield time_series(
        Spec(
            "Lag in seconds",
            "For how long each streaming standby has not replayed WAL that it needs.",
            {"{{standby}}": metric("standby_lag_seconds")},
            unit="s",
            size=(6, 8),
            low=0,
            runbook="standby-lag",
        )
    )
    yield time_series(
        Spec(
            "WAL",
            "WAL that the server writes for all sessions, ours included.",
            {"WAL": rate("server_wal_bytes_total")},
            unit="Bps",
            size=(6, 8),
            low=0,
        )
    )
    yield time_series(
        Spec(
            "Multixacts in use",
            "Age divided by vacuum_multixact_failsafe_age, members divided by their space. Below 50 % is"
            " healthy.",
            {"{{resource}}": metric("multixact_used_ratio")},
            unit="percentunit",
            size=(6, 8),
            low=0,
            steps=HALF,
            runbook="multixacts",
        )
    )


def growth() -> Panels:
    """What grows?"""
    hot, all_ = (
        f"sum by (table) (increase({metric(f'table_{name}_total', PLAN_TABLE)}[$__range]))"
        for name in ("hot_updates", "updates")
    )
    yield bars(
        Spec(
            "Heap-only share",
            "Share of a table's updates that changed no index, in the time shown, the application's included."
            " If it is low, an index contains the column or an old snapshot keeps dead rows.",
            {"{{table}}": f"bottomk(15, {hot} / ({all_} > 0))"},
            unit="percentunit",
            size=(8, 10),
            low=0,
            high=1,
            steps=[(None, "red"), (0.5, "orange"), (0.75, "green")],
        )
    )
    for title, name in (
        ("Growth of tables", "table_size_bytes"),
        ("Growth of indexes", "table_index_size_bytes"),
    ):
        size, now = metric(name, PLAN_TABLE), last(name, PLAN_TABLE)
        yield bars(
            Spec(
                title,
                "Last size divided by the smallest size in the time shown: the tables that grew most.",
                {
                    "{{table}}": f"topk(15, max by (table) ({now}) / min by (table)"
                    f" (min_over_time({size}[$__range]) > 0))"
                },
                unit="percentunit",
                size=(8, 10),
                low=1,
                steps=[(None, "green"), (1.2, "orange"), (1.5, "red")],
            )
        )
    yield time_series(
        Spec(
            "Updates",
            "Updated rows per second of all sessions, and those of them that changed no index.",
            {
                "all": f"sum({rate('table_updates_total', PLAN_TABLE)})",
                "heap-only": f"sum({rate('table_hot_updates_total', PLAN_TABLE)})",
            },
            unit="rowsps",
            low=0,
        )
    )
    yield time_series(
        Spec(
            "Size of tables and indexes",
            "Total of the plan's tables.",
            {
                "tables": f"sum({metric('table_size_bytes', PLAN_TABLE)})",
                "indexes": f"sum({metric('table_index_size_bytes', PLAN_TABLE)})",
            },
            unit="bytes",
            low=0,
        )
    )
    yield time_series(
        Spec(
            "Dead rows",
            "The server's estimate for the ten tables with most. Pruning and autovacuum remove them.",
            {"{{table}}": f"topk(10, {metric('table_dead_rows', PLAN_TABLE)})"},
            unit="short",
            low=0,
        )
    )


def application() -> Panels:
    """What is the effect on the application?"""
    for title, unit, queries, text in (
        (
            "Transactions",
            "ops",
            {
                "commits": f"sum(rate(pg_stat_database_xact_commit{DATABASE}[$__rate_interval]))",
                "rollbacks": f"sum(rate(pg_stat_database_xact_rollback{DATABASE}[$__rate_interval]))",
            },
            "Transactions per second. A dip at one of our annotations is caused by the run.",
        ),
        (
            "Longest transaction",
            "s",
            {"{{state}}": f"max by (state) (pg_stat_activity_max_tx_duration{DATABASE})"},
            "The oldest transaction by state. It delays lock windows, index builds and pruning.",
        ),
        (
            "Locks by mode",
            "short",
            {"{{mode}}": f"sum by (mode) (pg_locks_count{DATABASE})"},
            "Locks that are held or requested.",
        ),
        (
            "Deadlocks and conflicts",
            "short",
            {
                "deadlocks": f"sum(increase(pg_stat_database_deadlocks{DATABASE}[$__rate_interval]))",
                "conflicts": f"sum(increase(pg_stat_database_conflicts{DATABASE}[$__rate_interval]))",
            },
            "Deadlocks, and queries that a standby cancelled.",
        ),
    ):
        yield time_series(Spec(title, f"{text} {EXPORTER}", queries, unit=unit, size=(6, 8), low=0))


def runner() -> Panels:
    """What does the runner cost?"""
    yield time_series(
        Spec(
            "Processor",
            "Share of one core that the runner uses. The target is 5 % at full speed.",
            {"runner": f"rate(online_migrate_process_cpu_seconds_total[$__rate_interval]) {OF_PLAN}"},
            unit="percentunit",
            size=(6, 7),
            low=0,
        )
    )
    yield time_series(
        Spec(
            "Memory",
            "The runner's resident memory. The target is 150 MB.",
            {"resident": f"online_migrate_process_resident_memory_bytes {OF_PLAN}"},
            unit="bytes",
            size=(6, 7),
            low=0,
        )
    )
    yield time_series(
        Spec(
            "Connections",
            "Sessions of this runner on the server, at most 6, and how often the lease was taken.",
            {"sessions": metric("connections"), "epoch": metric("lease_epoch")},
            size=(6, 7),
            low=0,
            decimals=0,
        )
    )
    yield time_series(
        Spec(
            "Age of the server's readings",
            f"Sizes, WAL and standbys are read every {EVERY_S:g} s. A growing age means that reading fails.",
            {"age": f"time() - {metric('server_reading_time_seconds')}"},
            unit="s",
            size=(6, 7),
            low=0,
            steps=[(None, "green"), (30.0, "orange")],
        )
    )
