"""What the server reports while we work: WAL, heap-only updates, sizes, standbys, multixacts."""

from __future__ import annotations

from online_migrate.observe.prometheus.definitions import ServerMetrics
from online_migrate.observe.prometheus.meters.base import Now
from online_migrate.observe.prometheus.readings import ServerReading, TableReading
from online_migrate.observe.prometheus.series import Series

OLD_S = 30.0
"""an older reading, three intervals old, is not shown: it would look current"""


class ServerMeter:
    """Counts from the first reading of this process; after a reset of the statistics from zero."""

    def __init__(self, metrics: ServerMetrics, epoch: Series, now: Now) -> None:
        self._m = metrics
        self._epoch = epoch
        self._now = now
        self._last: dict[tuple[Series, tuple[str, ...]], int] = {}
        self._read_at = now()
        metrics.read_at.set((), self._read_at)

    def take(self, reading: ServerReading) -> None:
        """Show a reading; what is not known is not shown."""
        self._read_at = self._now()
        self._m.read_at.set((), self._read_at)
        self._m.connections.set((), reading.connections)
        self._epoch.set((), reading.epoch)
        self._count(self._m.wal, (), reading.wal_bytes)
        for table in reading.tables:
            self._take_table(table)
        self._m.lag_bytes.clear()
        self._m.lag_seconds.clear()
        for standby in reading.standbys:
            self._m.lag_bytes.set((standby.name,), standby.lag_bytes)
            self._m.lag_seconds.set((standby.name,), standby.lag_s)
        for what, ratio in reading.multixacts.items():
            self._m.multixacts.set((what,), ratio)

    def forget_old(self) -> None:
        """Before each scrape: if the last reading is old, remove its gauges; its time and the counters
        remain.
        """
        if self._now() - self._read_at > OLD_S:
            m = self._m
            gauges = (
                m.connections,
                m.dead,
                m.table_bytes,
                m.index_bytes,
                m.lag_bytes,
                m.lag_seconds,
                m.multixacts,
            )
            for gauge in gauges:
                gauge.clear()

    def _take_table(self, table: TableReading) -> None:
        key = (table.table,)
        self._count(self._m.updates, key, table.updates)
        self._count(self._m.hot, key, table.hot_updates)
        self._m.dead.set(key, table.dead_rows)
        if table.table_bytes is not None and table.index_bytes is not None:
            self._m.table_bytes.set(key, table.table_bytes)
            self._m.index_bytes.set(key, table.index_bytes)

    def _count(self, series: Series, labels: tuple[str, ...], value: int) -> None:
        last = self._last.get((series, labels), value)
        series.add(labels, value - last if value >= last else value)
        self._last[series, labels] = value
