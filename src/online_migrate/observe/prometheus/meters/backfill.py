"""Rows, batches, share and time left of every table; late rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from online_migrate import events as e
from online_migrate.observe.prometheus.definitions import BackfillMetrics
from online_migrate.observe.prometheus.meters.base import Changes, Handlers, step_of, table_of
from online_migrate.observe.snapshot.kinds import is_backfill
from online_migrate.observe.snapshot.views import Snapshot


class BackfillMeter:
    """Counters count what this process did; gauges continue where earlier processes stopped."""

    def __init__(self, metrics: BackfillMetrics) -> None:
        self._m = metrics
        self._own: dict[tuple[str, str, str], bool] = {}
        """steps of which this process has events, and whether they are running"""
        self._changes = Changes()
        self._batches: dict[tuple[str, str, str], list[e.BatchDone]] = {}
        """of each step since the last :meth:`process_batches`"""

    @property
    def handlers(self) -> Handlers:
        others: Handlers = {
            e.StageStarted: self._stage_started,
            e.BackfillStarted: self._backfill_started,
            e.LateRows: self._late_rows,
            e.WaitStarted: self._wait_started,
            e.StepEnded: self._step_ended,
            e.StepFailed: self._forget_eta,
            e.RunEnded: self._run_ended,
        }
        return {e.BatchDone: self._batch_done} | {
            kind: self._after_batches(handler) for kind, handler in others.items()
        }

    def process_batches(self) -> None:
        """Show the batches of each step together: most events are batches, and they make few figures."""
        while self._batches:
            table, batches = self._batches.popitem()
            step, last = table[:2], batches[-1]
            self._own[table] = True
            self._m.done.set(table, last.rows_done)
            self._m.share.raise_to(table, max(b.share_done for b in batches))  # a sweep reads all pages again
            eta_s = last.eta_s if last.share_done < 1 else None  # how long a proof takes is not known
            self._m.eta.set(table, eta_s)
            self._m.rows.add(table, sum(b.rows for b in batches))
            self._m.batches.add(table, len(batches))
            self._m.skipped.add(step, sum(b.skipped_locked for b in batches))
            self._m.paused.add(step, sum(b.pause_s for b in batches))
            for b in batches:
                self._m.seconds.observe(step, b.seconds)
                self._m.size.observe(step, b.rows)

    def _after_batches(self, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        def in_order(event: e.Event) -> None:
            self.process_batches()
            handler(event)

        return in_order

    def update(self, snapshot: Snapshot) -> None:
        """Take in what earlier processes did."""
        for _, steps in self._changes.since_last(snapshot):
            for step in (s for s in steps if s.is_passed and self._own.get(s.key) is not False):
                self._m.eta.set(step.key, None)
            for step in (s for s in steps if s.rows_expected is not None and s.share_done is not None):
                if step.key not in self._own and (step.state != "done" or step.rows_done):
                    self._show(
                        step.key, done=step.rows_done, expected=step.rows_expected, share=step.share_done
                    )

    def _stage_started(self, event: e.StageStarted) -> None:
        self._m.after_proof.add((event.stage,))

    def _late_rows(self, event: e.LateRows) -> None:
        """The backfill fills them; if a later step finds one, a statement writes rows without a value."""
        self._m.late.set(table_of(event), event.rows)
        if not is_backfill(event.step):
            self._m.after_proof.add((event.stage,), event.rows)

    def _backfill_started(self, event: e.BackfillStarted) -> None:
        self._own[table_of(event)] = True
        share = event.pages_done / event.pages_total if event.pages_total else 1.0
        self._show(table_of(event), done=event.rows_done, expected=event.rows_expected, share=share)
        for metric in (self._m.rows, self._m.batches, self._m.late):
            metric.add(table_of(event))
        for metric in (self._m.skipped, self._m.paused):
            metric.add(step_of(event))
        for metric in (self._m.seconds, self._m.size):
            metric.begin(step_of(event))

    def _batch_done(self, event: e.BatchDone) -> None:
        self._batches.setdefault(table_of(event), []).append(event)

    def _step_ended(self, event: e.StepEnded) -> None:
        if table_of(event) in self._own:
            self._own[table_of(event)] = False
            self._m.share.set(table_of(event), 1)
            self._m.eta.set(table_of(event), 0)

    def _wait_started(self, event: e.WaitStarted) -> None:
        if event.step:
            self._forget_eta(event)
        else:
            self._run_ended(event)

    def _run_ended(self, _: e.Event) -> None:
        for key, is_open in self._own.items():
            if is_open:
                self._m.eta.set(key, None)

    def _forget_eta(self, event: e.Event) -> None:
        self._m.eta.set(table_of(event), None)

    def _show(
        self, key: tuple[str, str, str], *, done: int, expected: int | None, share: float | None
    ) -> None:
        self._m.done.set(key, done)
        self._m.expected.set(key, expected)
        self._m.share.set(key, share)
