"""Depth, of the server: standbys and WAL, growth, what the application feels, what the runner costs."""

from __future__ import annotations

from typing import Final

from grafana.night import HALF, Panels
from grafana.panels import Spec, bars, time_series
from grafana.queries import PLAN_TABLE, last, metric, rate
from online_migrate.observe.prometheus.readings import EVERY_S

EXPORTER: Final = (
    "From postgres_exporter, of the server and the database that are chosen above; empty without."
)
EXPORTERS: Final = {
    "server": ("Server", "label_values(pg_stat_database_xact_commit, instance)"),
    "database": ("Database", 'label_values(pg_stat_database_xact_commit{instance="$server"}, datname)'),
}
"""what the application is felt by: a Prometheus may scrape many servers, and no metric of ours knows ours among them"""
DATABASE: Final = '{instance="$server", datname="$database"}'
OF_PLAN: Final = f"* on (job, instance) group_left (plan) {metric('build_info')}"
"""the process' own metrics do not know its plan"""


def standbys() -> Panels:
    """What do standbys and WAL say?"""
    yield time_series(
        Spec("Lag in bytes", "WAL that each streaming standby has yet to replay, and the plan's narrowest bound.",
             {"{{standby}}": metric("standby_lag_bytes"), "budget": metric("standby_lag_budget_bytes")},
             unit="bytes", size=(6, 8), low=0, runbook="standby-lag")
    )  # fmt: skip
    yield time_series(
        Spec("Lag in seconds", "How long each streaming standby has been without WAL that it has yet to replay.",
             {"{{standby}}": metric("standby_lag_seconds")}, unit="s", size=(6, 8), low=0, runbook="standby-lag")
    )  # fmt: skip
    yield time_series(
        Spec("WAL", "WAL that the server writes, everybody's and ours.", {"WAL": rate("server_wal_bytes_total")},
             unit="Bps", size=(6, 8), low=0)
    )  # fmt: skip
    yield time_series(
        Spec("Multixacts in use", "Age by vacuum_multixact_failsafe_age, members by their space. Healthy is below a half.",
             {"{{what}}": metric("multixact_used_ratio")}, unit="percentunit", size=(6, 8), low=0, steps=HALF,
             runbook="multixacts")
    )  # fmt: skip


def growth() -> Panels:
    """What grows?"""
    hot, all_ = (
        f"sum by (table) (increase({metric(f'table_{name}_total', PLAN_TABLE)}[$__range]))"
        for name in ("hot_updates", "updates")
    )
    yield bars(
        Spec("Heap-only share", "Updates that touched no index, of all updates of a table in the time shown, the application's"
             " included. Where it is low, an index holds the column or an old snapshot keeps dead rows.",
             {"{{table}}": f"bottomk(15, {hot} / ({all_} > 0))"}, unit="percentunit", size=(8, 10), low=0, high=1,
             steps=[(None, "red"), (0.5, "orange"), (0.75, "green")])
    )  # fmt: skip
    for title, name in (
        ("Growth of tables", "table_size_bytes"),
        ("Growth of indexes", "table_index_size_bytes"),
    ):
        size, now = metric(name, PLAN_TABLE), last(name, PLAN_TABLE)
        yield bars(
            Spec(title, "Size when last read by the smallest size in the time shown, where it grew most.",
                 {"{{table}}": f"topk(15, max by (table) ({now}) / min by (table) (min_over_time({size}[$__range]) > 0))"},
                 unit="percentunit", size=(8, 10), low=1, steps=[(None, "green"), (1.2, "orange"), (1.5, "red")])
        )  # fmt: skip
    yield time_series(
        Spec("Updates", "Rows that are updated a second, everybody's, and those of them that touched no index.",
             {"all": f"sum({rate('table_updates_total', PLAN_TABLE)})",
              "heap-only": f"sum({rate('table_hot_updates_total', PLAN_TABLE)})"}, unit="rowsps", low=0)
    )  # fmt: skip
    yield time_series(
        Spec("Size of tables and indexes", "Of the plan's tables together.",
             {"tables": f"sum({metric('table_size_bytes', PLAN_TABLE)})",
              "indexes": f"sum({metric('table_index_size_bytes', PLAN_TABLE)})"}, unit="bytes", low=0)
    )  # fmt: skip
    yield time_series(
        Spec("Dead rows", "An estimate, of the ten tables with most: pruning and autovacuum take them away.",
             {"{{table}}": f"topk(10, {metric('table_dead_rows', PLAN_TABLE)})"}, unit="short", low=0)
    )  # fmt: skip


def application() -> Panels:
    """What does the application feel?"""
    for title, unit, queries, text in (
        ("Transactions", "ops", {"commits": f"sum(rate(pg_stat_database_xact_commit{DATABASE}[$__rate_interval]))",
                                 "rollbacks": f"sum(rate(pg_stat_database_xact_rollback{DATABASE}[$__rate_interval]))"},
         "Transactions a second: a dip under an annotation of ours is ours."),
        ("Longest transaction", "s", {"{{state}}": f"max by (state) (pg_stat_activity_max_tx_duration{DATABASE})"},
         "The oldest transaction by state: it holds back lock windows, builds and pruning."),
        ("Locks by mode", "short", {"{{mode}}": f"sum by (mode) (pg_locks_count{DATABASE})"}, "Locks that are held or waited for."),
        ("Deadlocks and conflicts", "short", {"deadlocks": f"sum(increase(pg_stat_database_deadlocks{DATABASE}[$__rate_interval]))",
                                              "conflicts": f"sum(increase(pg_stat_database_conflicts{DATABASE}[$__rate_interval]))"},
         "Deadlocks, and queries that a standby cancelled: the runner causes none that it can avoid."),
    ):  # fmt: skip
        yield time_series(Spec(title, f"{text} {EXPORTER}", queries, unit=unit, size=(6, 8), low=0))


def runner() -> Panels:
    """What does the runner itself cost?"""
    yield time_series(
        Spec("Processor", "Share of one core that the runner takes; the target is 5 % at full speed.",
             {"runner": f"rate(online_migrate_process_cpu_seconds_total[$__rate_interval]) {OF_PLAN}"}, unit="percentunit", size=(6, 7), low=0)
    )  # fmt: skip
    yield time_series(
        Spec("Memory", "The runner's resident memory; the target is 150 MB.",
             {"resident": f"online_migrate_process_resident_memory_bytes {OF_PLAN}"}, unit="bytes", size=(6, 7), low=0)
    )  # fmt: skip
    yield time_series(
        Spec("Connections", "Sessions of ours on the server, at most 6, and how often the lease was taken.",
             {"sessions": metric("connections"), "epoch": metric("lease_epoch")}, size=(6, 7), low=0, decimals=0)
    )  # fmt: skip
    yield time_series(
        Spec("Age of the server's readings", f"Sizes, WAL and standbys are read every {EVERY_S:g} s; one that fails grows old.",
             {"age": f"time() - {metric('server_reading_time_seconds')}"}, unit="s", size=(6, 7), low=0,
             steps=[(None, "green"), (30.0, "orange")])
    )  # fmt: skip
