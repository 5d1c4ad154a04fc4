"""Several steps side by side, each on a session of its own: the largest table first, never two on one table.

One budget: the workers have the stage's pace together, so more of them write no more than one, unless the
plan gives them more.  The first failure ends the others at once, whose batches are rolled back; the journal
says how far each has come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from online_migrate.clock import Signal
from online_migrate.errors import Interrupted
from online_migrate.plan.model import Step
from online_migrate.postgres.connection import Connection
from online_migrate.run import WorkerContext

CANCEL_S = 5.0
"""how long the request to cancel a statement may take"""
LOOK_S = 0.2
"""how often workers are checked and, if all must end, their statements are cancelled"""


@dataclass(slots=True, kw_only=True)
class WorkerPool:
    """Workers for one step of the plan over several tables."""

    signal: Signal
    """the run's; a stop lets each worker finish its batch"""
    shared: Sequence[Connection] = ()
    """sessions that all workers share for reading about other sessions"""
    failed: Step | None = None
    """the step that ended the others"""
    _take: Callable[[Step, WorkerContext], None] = field(init=False)
    _waiting: deque[Step] = field(init=False, default_factory=deque)
    _active: int = field(init=False, default=0)
    _error: BaseException | None = field(init=False, default=None)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def run(
        self,
        take: Callable[[Step, WorkerContext], None],
        steps: Iterable[Step],
        sessions: Sequence[Connection],
    ) -> None:
        """``take`` all the steps in their order, one worker a session; returns when all are done and no
        worker runs.

        Raises what the first worker raised that failed, or :class:`Interrupted` where the run is to stop.
        """
        self._take, self._waiting = take, deque(steps)
        self._active, self._error = len(sessions), None
        with self.signal.child() as signal:
            workers = [WorkerContext(work=work, signal=signal, share=self._share) for work in sessions]
            threads = {
                threading.Thread(target=self._work, args=(worker,), name=f"worker {number}"): worker
                for number, worker in enumerate(workers, 1)
            }
            try:
                for thread in threads:
                    thread.start()
                self._await(threads)
            except BaseException:  # the operator's second Ctrl-C
                signal.abort("cancelled")
                self._await(threads)
                raise
        if self._error is not None:
            raise self._error

    def _await(self, threads: Mapping[threading.Thread, WorkerContext]) -> None:
        """Wait until no worker runs; cancels repeatedly, since a request to cancel may come between two
        statements.
        """
        while active := [(t, worker) for t, worker in threads.items() if t.is_alive()]:
            active[0][0].join(LOOK_S)
            if active[0][1].signal.is_aborting:
                for connection in (*(worker.work for t, worker in active if t.is_alive()), *self.shared):
                    with suppress(psycopg.Error):  # a session that is lost has nothing to cancel
                        connection.cancel_safe(timeout=CANCEL_S)

    def _share(self) -> float:
        return 1 / max(self._active, 1)

    def _work(self, worker: WorkerContext) -> None:
        """One worker: the next table as soon as the last is done."""
        try:
            while (step := self._next()) is not None:
                try:
                    self._take(step, worker)
                except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits for us
                    self._fail(step, error, worker.signal)
                    return
        finally:
            with self._lock:
                self._active -= 1

    def _next(self) -> Step | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting and self._error is None else None

    def _fail(self, step: Step, error: BaseException, signal: Signal) -> None:
        """A stop reaches all workers; a failure has precedence, and does not wait for another worker's long
        statement.
        """
        is_stop = isinstance(error, Interrupted)
        with self._lock:
            if self._error is not None and (is_stop or not isinstance(self._error, Interrupted)):
                return
            self._error = error
            self.failed = None if is_stop else step
        if not is_stop:
            signal.abort(f"{step} failed")
