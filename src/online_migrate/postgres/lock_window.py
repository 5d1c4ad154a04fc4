"""The only way to a strong lock: check, take a weak lock first, ask briefly, cap the hold, release and retry.

The short time in which a strong lock is asked for and held is one message to the server
(:mod:`window_message`).  Between the lock's grant and its release nothing waits for us, so a runner that is
stopped or cut off there cannot hold the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import tenacity
from psycopg import sql
from psycopg.pq import TransactionStatus

from online_migrate.clock import Clock, Signal
from online_migrate.errors import Interrupted, LockNotAcquired, UndeclaredLock
from online_migrate.events import LockAttemptFailed, LockHeld
from online_migrate.postgres.blocker_watch import BlockerWatch, read_deadlock_timeouts
from online_migrate.postgres.blockers import Blocker, describe_blockers
from online_migrate.postgres.connection import Connection, Sql
from online_migrate.postgres.ladder import LEAST_TIMEOUT_S, Exposure, Ladder
from online_migrate.postgres.locks import LockNeed
from online_migrate.postgres.sqlstate import LOCK_MISMATCH, ErrorClass, error_class
from online_migrate.postgres.standbys import Standbys
from online_migrate.postgres.window_message import (
    Target,
    Times,
    read_targets,
    read_times,
    side_message,
    window_message,
)
from online_migrate.postgres.window_rules import WindowRules
from online_migrate.waiting import Waiting

LOOK_EVERY_S = 0.25
PAUSE_MAX_S = 5.0
AT_ONCE_S = 0.005
"""a lock that was granted in less was free"""
CAP_HITS = 2
"""a change that twice needed longer than hold_cap under the lock is no instant one: asking again would stop
the application each time for nothing"""


class _LockAttemptFailed(Exception):  # control flow: it never leaves this module
    """This attempt failed; application statements could have waited ``waited_s`` behind our request."""

    def __init__(self, reason: str, waited_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.waited_s = waited_s


@dataclass(slots=True, kw_only=True)
class LockWindow:
    """Runs DDL under strong locks on ``work``, looking at others through ``watch``.  One :meth:`run` at a
    time.
    """

    work: Connection
    watch: Connection
    rules: WindowRules
    fence: Sql
    clock: Clock
    signal: Signal
    emit: Callable[..., None]
    exposure: Exposure = field(default_factory=Exposure)
    standbys: Standbys = field(default_factory=Standbys)
    ensure_going: Callable[[], float] = lambda: 0.0
    """raises :class:`Interrupted` on a stop, waits while the run is paused; the seconds of that wait"""
    _targets: tuple[Target, ...] = ()
    _ladder: Ladder = field(init=False)
    _own_deadlock_timeout_s: float = field(init=False)
    _deadline: float = 0.0
    _waited_s: float = 0.0
    _cap_hits: int = 0
    _blockers: BlockerWatch = field(init=False)

    def __post_init__(self) -> None:
        self._own_deadlock_timeout_s, shortest_s = read_deadlock_timeouts(self.watch)
        self._ladder = Ladder(deadlock_timeout_s=shortest_s, hold_cap_s=self.rules.hold_cap_s)
        self._blockers = BlockerWatch(
            watch=self.watch,
            mine=self.work.info.backend_pid,
            age_s=self.rules.blocker_age_s,
            policy=self.rules.policy,
            emit=self.emit,
        )

    def run(self, needs: Sequence[LockNeed], ddl: Sequence[sql.Composable]) -> None:
        """Run ``ddl`` in one transaction under the locks of ``needs``, all or nothing.

        ``needs`` names every relation on which a lock above ROW EXCLUSIVE is taken; one that is made by the
        DDL need not be named, and partitions go with their table.  The commit is local: the next commit on a
        session with synchronous_commit on (the journal's) waits for the standbys, outside the lock.

        Raises :class:`LockNotAcquired` with the blockers when a bound is spent, :class:`UndeclaredLock` where
        a stronger lock than declared was taken, :class:`Interrupted` on a stop, and psycopg.Error for what
        the DDL itself meets; in each case nothing was changed.
        """
        self._targets = read_targets(self.work, needs)
        self._blockers.standbys = self.standbys
        self._deadline = self.clock.monotonic() + self.rules.lock_wait_s
        self._waited_s, self._cap_hits = 0.0, 0
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_LockAttemptFailed),
            stop=lambda state: self._is_spent(state.attempt_number),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=PAUSE_MAX_S),
            sleep=tenacity.sleep_using_event(self.signal.event),
            before_sleep=self._report_failed_attempt,
            retry_error_callback=self._give_up,
        ):
            with attempt:
                self._rest()
                self._wait_outside()
                xid = self._take_weak_lock()
                self._ask(ddl, attempt.retry_state.attempt_number, xid)

    # 1. look

    def _rest(self) -> None:
        """After a window that sessions waited behind, or that had to wait itself, they come first."""
        rest_s = self.exposure.rest_s(self._names(), self.clock.monotonic())
        if rest_s and self.clock.wait(rest_s, self.signal):
            self._ensure_going()

    def _wait_outside(self) -> None:
        """While a session blocks us for longer than the threshold, wait outside the lock's queue."""
        self._ensure_going()
        with Waiting(self.emit, self.clock, "blocker") as waiting:
            while stale := self._blockers.look(self._targets):
                is_first = not waiting.has_begun
                waiting.report(describe_blockers(stale, self.rules.lock_wait_s), cause=stale[0].pid)
                if is_first:
                    self._blockers.say(stale, self._described())
                if self.clock.monotonic() > self._deadline:
                    raise self._not_acquired(f"within {self.rules.lock_wait_s:.0f} s (lock_wait)", stale)
                self._blockers.end_by_rule(stale)
                self.clock.wait(LOOK_EVERY_S, self.signal)
                self._ensure_going()

    # 2. come from the side

    def _take_weak_lock(self) -> str:
        """SHARE UPDATE EXCLUSIVE conflicts with no statement of the application; an ordinary autovacuum
        yields to it after our deadlock_timeout (postgres-facts 5), so each try lasts longer than that.
        Returns the transaction's id.
        """
        message = side_message(self._targets, self._own_deadlock_timeout_s + 1.5)
        while True:
            try:
                cursor = self.work.execute(message)
            except psycopg.Error as error:
                self._roll_back()
                if error_class(error) is not ErrorClass.LOCK:
                    raise
                self._ensure_going()
                self._blockers.look_at_the_side(self._targets)
                if self.clock.monotonic() > self._deadline:
                    bound = (
                        f"within {self.rules.lock_wait_s:.0f} s (lock_wait), not even SHARE UPDATE EXCLUSIVE"
                    )
                    raise self._not_acquired(bound, self._blockers.blockers) from error
            else:
                return _read_xid(cursor)

    # 3. ask briefly, 4. cap the hold

    def _ask(self, ddl: Sequence[sql.Composable], attempt: int, xid: str) -> None:
        """One message; the server's clock says when the lock was requested, granted and released."""
        timeout_s = self._ladder.timeout_s(attempt, self._left_s())
        message = window_message(
            self._targets,
            ddl,
            fence=self.fence,
            timeout_s=timeout_s,
            ladder=self._ladder,
            server_version=self.work.info.server_version,
        )
        began = self.clock.monotonic()
        try:
            times = read_times(self.work.execute(message))
        except psycopg.Error as error:
            elapsed_s = self.clock.monotonic() - began
            if self._is_committed(xid):
                self._note_held(None, elapsed_s, attempt)
            else:
                self._roll_back()
                self._fail_attempt(error, elapsed_s, timeout_s)
        else:
            self._note_held(times, 0.0, attempt)

    def _is_committed(self, xid: str) -> bool:
        """A cancellation can come between COMMIT and the time after it: then the transaction's fate is looked
        up.
        """
        if self.work.closed or self.work.info.transaction_status is not TransactionStatus.IDLE:
            return False
        row = self.work.execute("SELECT pg_xact_status(%s::xid8)", [xid]).fetchone()
        return row is not None and row[0] == "committed"

    def _note_held(self, times: Times | None, elapsed_s: float, attempt: int) -> None:
        waited_s = 0.0 if times is None else times.waited_s
        held_s = elapsed_s if times is None else times.held_s
        self._waited_s = max(self._waited_s, waited_s)
        self.exposure.add(self._names(), waited_s + held_s)
        if times is None or times.had_waiters or attempt > 1 or waited_s > AT_ONCE_S:
            self.exposure.note_released(self._names(), self.clock.monotonic())
        first = self._targets[0] if self._targets else None
        self.emit(
            LockHeld,
            relation="" if first is None else first.relation,
            lock="" if first is None else first.mode.sql,
            attempts=attempt,
            waited_s=self._waited_s,
            held_s=held_s,
            locks=tuple(map(str, self._targets)),
        )

    # 5. release and retry

    def _fail_attempt(self, error: psycopg.Error, elapsed_s: float, timeout_s: float) -> None:
        """Raise what the failed try means; its time counts as exposure, the hold
        before the failure included.
        """
        if error.sqlstate == LOCK_MISMATCH:
            raise UndeclaredLock(
                held=str(error.diag.message_primary), declared=tuple(map(str, self._targets))
            ) from error
        if error_class(error) is not ErrorClass.LOCK:
            raise error
        waited_s = min(elapsed_s, timeout_s + self.rules.hold_cap_s)
        self.exposure.add(self._names(), waited_s)
        self.exposure.note_released(self._names(), self.clock.monotonic())
        if isinstance(error, psycopg.errors.QueryCanceled) and elapsed_s >= self.rules.hold_cap_s:
            self._cap_hits += 1
        self._blockers.look(self._targets)
        raise _LockAttemptFailed(str(error.diag.message_primary or error), waited_s) from error

    def _left_s(self) -> float:
        return self.exposure.left_s(
            self._names(), per_relation_s=self.rules.exposure_s, in_all_s=self.rules.exposure_run_s
        )

    def _is_spent(self, attempts: int) -> bool:
        return (
            attempts >= self.rules.attempts
            or self._cap_hits >= CAP_HITS
            or self._left_s() < LEAST_TIMEOUT_S
            or self.clock.monotonic() > self._deadline
        )

    def _report_failed_attempt(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, _LockAttemptFailed)  # the only one that is retried
        self._waited_s = max(self._waited_s, error.waited_s)
        first = self._targets[0] if self._targets else None
        self.emit(
            LockAttemptFailed,
            relation="" if first is None else first.relation,
            lock="" if first is None else first.mode.sql,
            attempt=state.attempt_number,
            waited_s=error.waited_s,
            pause_s=state.upcoming_sleep,
            reason=error.reason,
            blockers=tuple(map(str, self._blockers.blockers)),
        )

    def _give_up(self, state: tenacity.RetryCallState) -> None:
        if self._cap_hits >= CAP_HITS:
            bound = (
                f"for long enough: {self._cap_hits} times the change took longer than"
                f" {self.rules.hold_cap_s:.1f} s (hold_cap)"
            )
        else:
            spent_s = self.exposure.total_s
            bound = f"in {state.attempt_number} attempts; {spent_s:.1f} s of exposure used in this run"
        raise self._not_acquired(bound, self._blockers.blockers)

    def _not_acquired(self, bound: str, blockers: Sequence[Blocker]) -> LockNotAcquired:
        return LockNotAcquired(
            f"could not acquire {self._described()} {bound}; nothing was changed",
            blockers=tuple(map(str, blockers)),
            remedy="wait until the blocking sessions end, or end each: SELECT pg_terminate_backend(PID); then"
            " run the same command again",
        )

    # words and states

    def _ensure_going(self) -> None:
        """Between two attempts; a pause is no time of waiting for the lock."""
        if self.signal.is_stopping:
            raise Interrupted(f"stopped before a lock window: {self.signal.reason}")
        self._deadline += self.ensure_going()

    def _roll_back(self) -> None:
        if not self.work.closed:
            self.work.rollback()

    def _names(self) -> tuple[str, ...]:
        return tuple(t.relation for t in self._targets if t.is_lockable)

    def _described(self) -> str:
        if not self._targets:
            return "a lock of the change itself"
        return f"{self._targets[0].mode.sql} on {', '.join(self._names())}"


def _read_xid(cursor: psycopg.Cursor[tuple[Any, ...]]) -> str:
    """The one result with a row of a :func:`side_message`, its last."""
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    assert row is not None  # a SELECT without FROM has one row
    return str(row[0])
