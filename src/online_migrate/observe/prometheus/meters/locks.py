"""Strong locks and long statements: how long we waited and held them, failed attempts, blocking sessions."""

from __future__ import annotations

from collections.abc import Iterable

from online_migrate import events as e
from online_migrate.observe.prometheus.definitions import LockMetrics
from online_migrate.observe.prometheus.meters.base import Handlers, Now, step_of, table_of
from online_migrate.observe.snapshot.views import Snapshot

BLOCKERS = 10
"""sessions that are shown at a time, per step"""


class LockMeter:
    """All figures are of this process."""

    def __init__(self, metrics: LockMetrics, now: Now) -> None:
        self._m = metrics
        self._now = now
        self._blockers: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        """blocking sessions of each step and table: several tables of a step may be at work"""

    @property
    def handlers(self) -> Handlers:
        return {
            e.StepStarted: self._step_started,
            e.StepEnded: self._step_over,
            e.StepFailed: self._step_over,
            e.LockHeld: self._lock_held,
            e.LockAttemptFailed: self._lock_attempt_failed,
            e.BlockersSeen: self._blockers_seen,
            e.WaitEnded: self._wait_ended,
            e.LongStatement: self._long_statement,
            **dict.fromkeys((e.LateRows, e.BackfillStarted, e.BatchDone), self._long_over),
            **dict.fromkeys((e.WaitStarted, e.WaitContinues), self._wait_reported),
        }

    def update(self, snapshot: Snapshot) -> None:
        """The journal has none of these figures."""

    def _step_started(self, event: e.StepStarted) -> None:
        self._m.failed.add(step_of(event))
        self._m.blockers_seen.add(step_of(event))
        self._show(event, ())

    def _step_over(self, event: e.Event) -> None:
        self._show(event, ())
        self._long_over(event)

    def _long_over(self, event: e.Event) -> None:
        """A long statement may end before its step: a proof that found rows, or a VACUUM before the next
        pass.
        """
        self._m.long_share.set(table_of(event), None)
        self._m.long_seconds.set(table_of(event), None)
        self._m.long_phase.hide(table_of(event))

    def _lock_held(self, event: e.LockHeld) -> None:
        table = event.table or event.relation
        self._m.held.observe(step_of(event), event.held_s)
        self._m.waited.observe(step_of(event), event.waited_s)
        self._m.held_max.raise_to((event.stage, table), event.held_s)
        self._m.waited_max.raise_to((event.stage, table), event.waited_s)
        self._m.held_at.set(step_of(event), self._now())
        self._m.exposure.add((table,), event.waited_s)
        self._show(event, ())

    def _lock_attempt_failed(self, event: e.LockAttemptFailed) -> None:
        table = event.table or event.relation
        self._m.failed.add(step_of(event), 1)
        self._m.waited_max.raise_to((event.stage, table), event.waited_s)
        self._m.exposure.add((table,), event.waited_s)
        if event.blockers:
            self._see(event, event.blockers)

    def _blockers_seen(self, event: e.BlockersSeen) -> None:
        self._see(event, event.blockers)

    def _wait_reported(self, event: e.WaitStarted | e.WaitContinues) -> None:
        """Of the ``quiet`` after a proof that was clean."""
        if event.kind == "soak":
            self._long_over(event)

    def _wait_ended(self, event: e.WaitEnded) -> None:
        if event.kind == "blocker":
            self._show(event, ())

    def _long_statement(self, event: e.LongStatement) -> None:
        self._m.long_share.set(table_of(event), event.share_done)
        self._m.long_seconds.set(table_of(event), event.seconds)
        self._m.long_phase.show(table_of(event), [event.phase] if event.phase else [])
        self._show(event, event.waits_for)

    def _see(self, event: e.Event, blockers: Iterable[str]) -> None:
        self._m.blockers_seen.add(step_of(event), 1)
        self._show(event, tuple(blockers))

    def _show(self, event: e.Event, blockers: tuple[str, ...]) -> None:
        tables = self._blockers.setdefault(step_of(event), {})
        tables.pop(event.table, None)
        if blockers:
            tables[event.table] = blockers
        seen = tuple(dict.fromkeys(blocker for each in tables.values() for blocker in each))
        self._m.blockers.set(step_of(event), len(seen))
        self._m.blocker.show(step_of(event), seen[:BLOCKERS])
