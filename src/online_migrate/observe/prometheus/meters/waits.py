"""Why the run waits: waits and throttlers with their reasons, retries."""

from __future__ import annotations

from collections.abc import Iterable

from online_migrate import events as e
from online_migrate.journal.steering import KIND as PAUSED
from online_migrate.observe.prometheus.definitions import WaitMetrics
from online_migrate.observe.prometheus.meters.base import Handlers, Now, table_of
from online_migrate.observe.snapshot.views import Snapshot

READ_WITHIN_S = 15.0
"""a throttler with an older reading is not in use: a proof reads, a table is locked, or the pass has ended"""
Wait = tuple[str, str, str, str]
"""its kind and its place"""


class WaitMeter:
    """All figures are of this process.  A wait counts while it is open, not only after its end."""

    def __init__(self, metrics: WaitMetrics, monotonic: Now) -> None:
        self._m = metrics
        self._monotonic = monotonic
        self._open: dict[Wait, str] = {}
        """waits and their reasons"""
        self._since: dict[str, float] = {}
        """kinds with an open wait, and the time up to which it is counted"""
        self._read_at: dict[str, float] = {}
        """throttlers, and when their reading was reported"""
        metrics.reconnects.add(())

    @property
    def handlers(self) -> Handlers:
        return {
            e.RunStarted: self._begin,
            e.WaitStarted: self._wait_started,
            e.WaitContinues: self._wait_started,
            e.WaitEnded: self._wait_ended,
            e.StepStarted: self._step_over,
            e.StepEnded: self._step_over,
            e.StepFailed: self._step_over,
            e.RunEnded: self._end,
            e.StageEnded: self._forget_readings,
            e.Reading: self._reading,
            e.Retried: lambda v: self._m.retries.add((v.kind,), 1),
            e.Reconnected: self._reconnected,
        }

    def update(self, snapshot: Snapshot) -> None:
        """The journal has none of these figures."""

    def count(self) -> None:
        """Before each scrape: count the time of open waits up to now, and remove readings that are not made
        any more.

        Such a reading would look current.
        """
        for kind, since in tuple(self._since.items()):
            now = max(self._monotonic(), since)
            self._m.waited.add((kind,), now - since)
            self._since[kind] = now
        for throttler, read_at in tuple(self._read_at.items()):
            if self._monotonic() - read_at > READ_WITHIN_S:
                self._forget_reading(throttler)

    def _begin(self, _: e.RunStarted) -> None:
        self._show("blocker")
        self._show(PAUSED)  # an alert asks that there be none
        self._m.waited.add(("blocker",))
        self._m.retries.add(("connection",))

    def _wait_started(self, event: e.WaitStarted | e.WaitContinues) -> None:
        self._open[event.kind, *table_of(event)] = event.reason
        self._m.waited.add((event.kind,))
        self._since.setdefault(event.kind, self._monotonic())
        self._show(event.kind)

    def _wait_ended(self, event: e.WaitEnded) -> None:
        wait = (event.kind, *table_of(event))
        self._forget([wait] if wait in self._open else [])

    def _step_over(self, event: e.Event) -> None:
        """A step that starts or ends has no wait, even if it failed during one; other steps may."""
        self._forget(wait for wait in self._open if wait[1:] == table_of(event))

    def _reconnected(self, _: e.Reconnected) -> None:
        """A wait over a session that was lost has restarted."""
        self._m.reconnects.add((), 1)
        self._forget(self._open)

    def _end(self, event: e.RunEnded) -> None:
        self._forget(self._open)
        self._forget_readings(event)

    def _forget(self, waits: Iterable[Wait]) -> None:
        over = tuple(waits)
        if over:
            self.count()
        for wait in over:
            del self._open[wait]
            self._show(wait[0])

    def _show(self, kind: str) -> None:
        reasons = [reason for key, reason in self._open.items() if key[0] == kind]
        self._m.waiting.set((kind,), len(reasons))
        self._m.wait_reason.show((kind,), reasons)
        if not reasons:
            self._since.pop(kind, None)

    def _reading(self, event: e.Reading) -> None:
        self._read_at[event.throttler] = self._monotonic()
        self._m.utilisation.set((event.throttler,), event.utilisation)
        self._m.age.set((event.throttler,), event.age_s)
        self._m.reason.show((event.throttler,), [event.reason])

    def _forget_readings(self, _: e.Event) -> None:
        for throttler in tuple(self._read_at):
            self._forget_reading(throttler)

    def _forget_reading(self, throttler: str) -> None:
        del self._read_at[throttler]
        self._m.utilisation.set((throttler,), None)
        self._m.age.set((throttler,), None)
        self._m.reason.hide((throttler,))
