"""The only way to a strong lock: look, come from the side, ask briefly, cap the hold, give way.

The short time in which a strong lock is asked for and held is one message to the server: LOCK TABLE, the fence, the DDL,
the comparison of pg_locks with what was declared, COMMIT.  Between the lock's grant and its release nothing waits for us,
so a runner that is stopped or cut off there cannot hold the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import tenacity
from psycopg import sql

from online_migrate.clock import Clock, Signal
from online_migrate.errors import Interrupted, LockNotHad
from online_migrate.events import BlockersSeen, LockGivenWay, LockHeld, WaitEnded, WaitStarted
from online_migrate.postgres.blockers import Blocker, read_blockers
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode, LockNeed
from online_migrate.postgres.sqlstate import Trouble, trouble_of

FIRST_TIMEOUT_S = 0.05
"""50 ms: what the first try makes the application wait at most"""
LADDER_STEP = 1.5
"""growth of lock_timeout from try to try"""
SHARE_OF_DEADLOCK_TIMEOUT = 0.8
"""the longest lock_timeout: at deadlock_timeout the application could become a deadlock's victim"""
FURTHER_SHARE = 0.25
"""a second strong lock gets at most this share of deadlock_timeout while the first is held (postgres-facts 6)"""
LOOK_EVERY_S = 0.25
PAUSE_MAX_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRules:
    """Bounds; seconds."""

    lock_wait_s: float = 1800.0
    blocker_age_s: float = 0.2
    attempts: int = 60
    hold_cap_s: float = 1.0
    exposure_s: float = 30.0


class _GaveWay(Exception):  # a turn of the ladder, not an error that anyone meets
    """This try is over; ``waited_s`` is what the application could have stood behind us."""

    def __init__(self, why: str, waited_s: float) -> None:
        super().__init__(why)
        self.why = why
        self.waited_s = waited_s


_COMPARE = """
DO $compare$ DECLARE surplus text; BEGIN
SELECT string_agg(format('%s on %s (declared: %s)', held.mode, held.relation::regclass, coalesce(declared.mode, 'nothing')), ', ') INTO surplus
  FROM (SELECT l.relation, l.mode, array_position({modes}, l.mode) AS level FROM pg_catalog.pg_locks l
         WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())) held
  JOIN pg_catalog.pg_class c ON c.oid = held.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname NOT IN ('pg_catalog', 'online_migrate')
  LEFT JOIN unnest({oids}::oid[], {declared}::text[]) AS declared (relation, mode) ON declared.relation = held.relation
 WHERE held.level > 3 AND held.level > coalesce(array_position({modes}, declared.mode), 0)
   AND NOT (SELECT coalesce(bool_and(a.xmin::text = (pg_catalog.pg_current_xact_id()::xid)::text), false)
              FROM pg_catalog.pg_attribute a WHERE a.attrelid = held.relation);
IF surplus IS NOT NULL THEN RAISE EXCEPTION 'a lock that was not declared: %', surplus USING ERRCODE = 'OM004'; END IF;
END $compare$"""
"""What this session holds against what was declared.  Left aside: modes up to ROW EXCLUSIVE, the system's catalogs, the
journal, and relations made in this transaction (all pg_attribute rows of such a relation are ours; no other's are, since a
table's rows for its system columns are written once, when it is made)."""


class LockWindow:
    """Runs DDL under strong locks on ``work``, looking at others through ``watch``."""

    def __init__(
        self,
        *,
        work: Connection,
        watch: Connection,
        rules: WindowRules,
        fence: sql.Composable,
        clock: Clock,
        signal: Signal,
        emit: Callable[..., None],
    ) -> None:
        self._work = work
        self._watch = watch
        self._rules = rules
        self._fence = fence
        self._clock = clock
        self._signal = signal
        self._emit = emit
        self._exposed_s = 0.0
        self._waited_s = 0.0
        self._blockers: tuple[Blocker, ...] = ()
        self._deadlock_timeout_s = float(self._setting("deadlock_timeout")) / 1000

    def run(
        self,
        needs: Sequence[LockNeed],
        ddl: Sequence[sql.Composable],
        *,
        epilogue: Sequence[sql.Composable] = (),
    ) -> None:
        """Run ``ddl`` in one transaction under the locks of ``needs``, all or nothing.

        ``needs`` names every relation on which a lock above ROW EXCLUSIVE is taken; one that is made by the DDL need not
        be named.  Raises :class:`LockNotHad` with the blockers when a bound is spent, nothing changed.
        """
        targets = self._resolve(needs)
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_GaveWay),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._rules.attempts), _StopWhen(self._is_exposure_spent)
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=PAUSE_MAX_S),
            sleep=tenacity.sleep_using_event(self._signal.event),
            before_sleep=lambda state: self._say_gave_way(state, targets),
            retry_error_callback=lambda state: self._give_up(state, targets),
        ):
            with attempt:
                self._ensure_not_stopped()
                self._wait_outside(targets)
                self._come_from_the_side(targets)
                self._ask(targets, [*ddl, *epilogue], attempt.retry_state.attempt_number)

    # 1. look

    def _wait_outside(self, targets: list[_Target]) -> None:
        """While a session is in the way for longer than the threshold, wait where nobody stands behind us."""
        deadline = self._clock.monotonic() + self._rules.lock_wait_s
        began: float | None = None
        while stale := self._look(targets):
            now = self._clock.monotonic()
            if began is None:
                began = now
                self._emit(WaitStarted, kind="blocker", reason=str(stale[0]))
                self._emit(BlockersSeen, waiting_for=_names(targets), blockers=tuple(map(str, stale)))
            if now > deadline:
                self._emit(WaitEnded, kind="blocker", seconds=now - began)
                raise self._not_had(
                    targets, f"after {self._rules.lock_wait_s:.0f} s of waiting outside the queue", stale
                )
            if self._clock.wait(LOOK_EVERY_S, self._signal):
                self._ensure_not_stopped()
        if began is not None:
            self._emit(WaitEnded, kind="blocker", seconds=self._clock.monotonic() - began)

    def _look(self, targets: list[_Target]) -> tuple[Blocker, ...]:
        """Blockers that will not be gone in a moment."""
        seen = read_blockers(
            self._watch, [(t.oid, t.mode) for t in targets], mine=[self._work.info.backend_pid]
        )
        self._blockers = tuple(b for b in seen if not b.is_autovacuum)
        return tuple(
            b
            for b in self._blockers
            if b.prepared is not None or b.age_s is None or b.age_s > self._rules.blocker_age_s
        )

    # 2. come from the side

    def _come_from_the_side(self, targets: list[_Target]) -> None:
        """SHARE UPDATE EXCLUSIVE conflicts with no statement of the application; an ordinary autovacuum yields to it
        after deadlock_timeout (postgres-facts 5), so each try lasts longer than that.
        """
        lockable = [t for t in targets if t.is_table]
        if not lockable:
            self._work.execute("BEGIN")
            return
        slice_s = self._deadlock_timeout_s + 1.5
        deadline = self._clock.monotonic() + self._rules.lock_wait_s
        tables = sql.SQL(", ").join(t.identifier for t in lockable)
        message = sql.SQL(
            "BEGIN; SET LOCAL lock_timeout = {}; LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE"
        ).format(
            sql.Literal(_ms(slice_s)),
            sql.SQL(", ONLY ").join(t.identifier for t in lockable) if lockable else tables,
        )
        while True:
            try:
                self._work.execute(message)
            except psycopg.Error as error:
                self._roll_back()
                if trouble_of(error) is not Trouble.LOCK:
                    raise
                self._ensure_not_stopped()
                if self._clock.monotonic() > deadline:
                    raise self._not_had(
                        targets,
                        f"SHARE UPDATE EXCLUSIVE not had in {self._rules.lock_wait_s:.0f} s",
                        self._blockers,
                    ) from error
                self._look_side(lockable)
            else:
                return

    def _look_side(self, targets: list[_Target]) -> None:
        side = [(t.oid, LockMode.SHARE_UPDATE_EXCLUSIVE) for t in targets]
        self._blockers = read_blockers(self._watch, side, mine=[self._work.info.backend_pid])
        self._emit(
            BlockersSeen,
            waiting_for=f"SHARE UPDATE EXCLUSIVE on {_names(targets)}",
            blockers=tuple(map(str, self._blockers)),
        )

    # 3. ask briefly, 4. cap the hold

    def _ask(self, targets: list[_Target], ddl: list[sql.Composable], attempt: int) -> None:
        """One message; the server says itself when it was granted the lock and when it was through."""
        began = self._clock.monotonic()
        timeout_s = self._timeout_s(attempt)
        try:
            cursor = self._work.execute(self._message(targets, ddl, timeout_s))
            ended = self._clock.monotonic()
        except psycopg.Error as error:
            waited_s = min(self._clock.monotonic() - began, timeout_s + self._rules.hold_cap_s)
            self._roll_back()
            if trouble_of(error) is not Trouble.LOCK:
                raise
            self._exposed_s += waited_s
            self._look(targets)
            raise _GaveWay(str(error.diag.message_primary or error), waited_s) from error
        asked, granted = _times(cursor)
        waited_s = (granted - asked).total_seconds()
        self._exposed_s += waited_s
        self._waited_s = max(self._waited_s, waited_s)
        self._emit(
            LockHeld,
            relation=targets[0].need.relation if targets else "",
            lock=targets[0].mode.sql if targets else "",
            attempts=attempt,
            waited_s=self._waited_s,
            held_s=max(ended - began - waited_s, 0.0),
            locks=tuple(f"{t.mode.sql} on {t.need.relation}" for t in targets),
        )

    def _message(self, targets: list[_Target], ddl: list[sql.Composable], timeout_s: float) -> sql.Composed:
        """Everything from the question for the lock to COMMIT."""
        cap = self._rules.hold_cap_s
        further_s = min(self._deadlock_timeout_s * FURTHER_SHARE, cap / 4)
        parts: list[sql.Composable] = [
            _set("statement_timeout", _ms(cap + timeout_s)),
            _set("idle_in_transaction_session_timeout", _ms(cap)),
            _set("synchronous_commit", "local"),
            _set("lock_timeout", _ms(timeout_s)),
        ]
        if self._work.info.server_version >= 170000:
            parts.append(_set("transaction_timeout", _ms(cap + timeout_s)))
        lockable = [t for t in targets if t.is_table]
        parts.append(sql.SQL("SELECT clock_timestamp()"))
        for position, target in enumerate(lockable):
            parts.append(
                sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(target.identifier, sql.SQL(target.mode.sql))
            )
            if position == 0:
                parts += [
                    sql.SQL("SELECT clock_timestamp()"),
                    _set("lock_timeout", _ms(further_s)),
                    _set("statement_timeout", _ms(cap)),
                ]
        if not lockable:
            parts.append(sql.SQL("SELECT clock_timestamp()"))
        parts += [self._fence, *ddl, self._compare(targets), sql.SQL("COMMIT")]
        return sql.SQL(";\n").join(parts)

    def _compare(self, targets: list[_Target]) -> sql.Composed:
        return sql.SQL(_COMPARE).format(
            modes=sql.Literal([m.pg_locks_mode for m in LockMode]),
            oids=sql.Literal([t.oid for t in targets]),
            declared=sql.Literal([t.mode.pg_locks_mode for t in targets]),
        )

    def _timeout_s(self, attempt: int) -> float:
        """A ladder from 50 ms to 0.8 × deadlock_timeout."""
        longest = min(SHARE_OF_DEADLOCK_TIMEOUT * self._deadlock_timeout_s, self._rules.hold_cap_s)
        return float(min(FIRST_TIMEOUT_S * LADDER_STEP ** (attempt - 1), longest))

    # 5. give way

    def _is_exposure_spent(self) -> bool:
        return self._exposed_s >= self._rules.exposure_s

    def _say_gave_way(self, state: tenacity.RetryCallState, targets: list[_Target]) -> None:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, _GaveWay)  # the only one that is retried
        self._waited_s = max(self._waited_s, error.waited_s)
        self._emit(
            LockGivenWay,
            relation=targets[0].need.relation,
            lock=targets[0].mode.sql,
            attempt=state.attempt_number,
            waited_s=error.waited_s,
            pause_s=state.upcoming_sleep,
            why=error.why,
            blockers=tuple(map(str, self._blockers)),
        )

    def _give_up(self, state: tenacity.RetryCallState, targets: list[_Target]) -> None:
        spent = f"{state.attempt_number} tries, {self._exposed_s:.1f} s of exposure"
        raise self._not_had(targets, f"after {spent}", self._blockers)

    def _not_had(self, targets: list[_Target], bound: str, blockers: tuple[Blocker, ...]) -> LockNotHad:
        return LockNotHad(
            f"{targets[0].mode.sql} on {_names(targets)} not had {bound}; nothing was changed",
            blockers=tuple(map(str, blockers)),
            remedy="let the sessions in the way end, or end them (pg_terminate_backend), then run the same command again",
        )

    def _ensure_not_stopped(self) -> None:
        if self._signal.is_stopping:
            raise Interrupted(f"stopped before a lock window: {self._signal.reason}")

    def _roll_back(self) -> None:
        if not self._work.closed:
            self._work.rollback()

    def _resolve(self, needs: Sequence[LockNeed]) -> list[_Target]:
        """Names to OIDs before the window, the strongest table first; relations that are to be made have none yet."""
        found = []
        for need in needs:
            row = self._work.execute(
                "SELECT c.oid::int8, c.relkind IN ('r', 'p') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = %s AND c.relname = %s",
                [need.schema, need.name],
            ).fetchone()
            if row is not None:
                found.append(_Target(need=need, oid=row[0], is_table=row[1]))
        return sorted(found, key=lambda t: (not t.is_table, -t.mode))

    def _setting(self, name: str) -> str:
        row = self._work.execute("SELECT setting FROM pg_settings WHERE name = %s", [name]).fetchone()
        return "1000" if row is None else str(row[0])


class _StopWhen(tenacity.stop.stop_base):
    """A bound that only the window knows."""

    def __init__(self, is_spent: Callable[[], bool]) -> None:
        self._is_spent = is_spent

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:  # noqa: ARG002  # tenacity's signature
        return self._is_spent()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    need: LockNeed
    oid: int
    is_table: bool

    @property
    def mode(self) -> LockMode:
        return self.need.mode

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.need.schema, self.need.name)


def _names(targets: list[_Target]) -> str:
    return ", ".join(t.need.relation for t in targets if t.is_table)


def _ms(seconds: float) -> str:
    return f"{max(round(seconds * 1000), 1)}ms"


def _set(name: str, value: str) -> sql.Composed:
    return sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value))


def _times(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[datetime, datetime]:
    """When the lock was asked for and when it was granted: the first two one-row results that hold a timestamp."""
    found: list[datetime] = []
    while len(found) < 2:
        if cursor.description and cursor.description[0].name == "clock_timestamp":
            row = cursor.fetchone()
            if row is not None:
                found.append(row[0])
        if not cursor.nextset():
            break
    return found[0], found[-1]
