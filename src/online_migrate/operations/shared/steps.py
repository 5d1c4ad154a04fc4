"""How operations run their statements: a lock window, a long statement, a fenced write.  One way each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from psycopg import sql

from online_migrate.backfill.context import BackfillContext
from online_migrate.events import StatementExecuted
from online_migrate.operations.contract.base import Context, Kind, Place, Statement
from online_migrate.plan.model import LockRules, Step
from online_migrate.postgres.blocker_policy import BlockerPolicy
from online_migrate.postgres.lock_window import LockWindow
from online_migrate.postgres.locks import LockMode, LockNeed, strongest
from online_migrate.postgres.long_statement import run_long_statement
from online_migrate.postgres.search_path import session_path, with_path
from online_migrate.postgres.server_errors import translating_fence
from online_migrate.postgres.window_rules import WindowRules


def run_window(context: Context, statements: Sequence[Statement]) -> None:
    """All the statements in one lock window, under the union of what they declare."""
    needs = strongest(n for s in statements for n in s.locks)
    window = LockWindow(
        work=context.work,
        watch=context.watch,
        rules=_rules_of(context.locks),
        fence=context.fence.sql,
        clock=context.clock,
        signal=context.signal,
        emit=context.emit,
        exposure=context.run.exposure,
        standbys=context.run.standbys,
        ensure_going=partial(context.ensure_going, "before a lock window"),
    )
    with recording(context, Kind.WINDOW, [s.text for s in statements]), translating_fence():
        window.run(needs, [with_path(context.work, s.path, s.sql) for s in statements])


def _rules_of(rules: LockRules) -> WindowRules:
    policy = rules.end_blockers
    return WindowRules(
        lock_wait_s=rules.lock_wait,
        blocker_age_s=rules.blocker_age,
        attempts=rules.attempts,
        hold_cap_s=rules.hold_cap,
        exposure_s=rules.exposure,
        exposure_run_s=rules.exposure_run,
        policy=None
        if policy is None
        else BlockerPolicy(
            matching=policy.matching,
            older_than_s=policy.older_than,
            terminate_after_s=policy.terminate_after,
            spare_writers=policy.spare_writers,
        ),
    )


def run_long(context: Context, statement: Statement) -> None:
    """One statement that may take long, watched; what it locks is compared with what it declares."""
    with recording(context, Kind.LONG, [statement.text]), translating_fence():
        run_long_statement(
            statement.sql,
            needs=statement.locks,
            work=context.work,
            watch=context.watch,
            fence=context.fence.sql,
            limit_s=context.locks.long_statement,
            clock=context.clock,
            signal=context.signal,
            emit=context.emit,
            is_wanted=context.is_wanted,
            path=session_path(context.work, statement.path),
        )


@contextmanager
def recording(context: Context, kind: Kind, texts: Sequence[str]) -> Iterator[None]:
    """Unless the block raises, these statements are kept in the journal's history as executed."""
    began = context.clock.monotonic()
    yield
    seconds = context.clock.monotonic() - began
    context.emit(StatementExecuted, statements=tuple(texts), kind=kind.value, seconds=seconds)


def need(
    schema: str, name: str, mode: LockMode, *, is_long: bool = False, is_alone: bool = False
) -> LockNeed:
    """Short for :class:`LockNeed`."""
    return LockNeed(schema=schema, name=name, mode=mode, is_long=is_long, is_alone=is_alone)


def alter_column(place: Place, column: str, change: sql.Composable) -> Statement:
    """ALTER COLUMN in a window: instant, on the table and all below it."""
    alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}").format(
        place.sql_table, sql.Identifier(column), change
    )
    locks = tuple(need(*names, LockMode.ACCESS_EXCLUSIVE) for names in place.family)
    return Statement(sql=alter, kind=Kind.WINDOW, locks=locks)


def backfill_context(context: Context, step: Step) -> BackfillContext:
    """What the backfill of ``step`` works with, at its own stage's pace, be it from within another step's
    context.
    """
    stage = context.place.plan.stage(step.stage)
    return BackfillContext(
        run=context.run,
        worker=context.worker,
        key=step.key,
        plan_pace=context.pace if stage is None else stage.pace,
        hold_when=context.hold_when if stage is None else stage.hold_when,
        throttles=context.throttles,
        reported_by=context.key,
    )
