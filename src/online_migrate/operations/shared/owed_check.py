"""The helper CHECK … NOT VALID of a step: until it is valid, the step owes the application its drop.

Every UPDATE of an old row that breaks it fails with 23514, whatever the UPDATE is about.  So whatever ends
the step, a timeout, a stop, an abort, an error, the check is dropped first; where it cannot be dropped, the
error says which statements fail, and how to end that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg.pq import TransactionStatus

from online_migrate.clock import Signal
from online_migrate.errors import Interrupted, LeaseLost, LockNotAcquired, OnlineMigrateError
from online_migrate.journal.steering import Steering
from online_migrate.operations.contract.base import Context, Statement
from online_migrate.operations.shared.steps import run_window
from online_migrate.plan.model import LockRules
from online_migrate.postgres.ladder import Exposure
from online_migrate.postgres.server_errors import translate_error
from online_migrate.postgres.sqlstate import is_connection_lost

WIDER = 4
"""times the plan's bounds on tries and exposure, with nothing of them spent yet: what was put there delays
the application until it is dropped"""
LAST_WAIT_S = 60.0
"""how long the drop may be tried for where a stop or an error ends the run: an operator who has asked for a
stop is waiting"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwedCheck:
    """The helper check of one step."""

    table: str
    name: str
    rows: str
    """those that break it: ``whose bot_id is NULL``"""
    drop: Statement

    def is_owed(self, context: Context) -> bool:
        """Does it exist, and is it not valid yet?"""
        table = context.fresh_catalog().table(self.table)
        return table is not None and any(c.name == self.name and not c.is_valid for c in table.constraints)

    def drop_now(self, context: Context, *, within_s: float | None = None) -> None:
        """The drop, in a window with bounds of its own that no stop ends.  Raises :class:`LockNotAcquired`,
        which says which statements fail until then.
        """
        locks = _wider(context.locks, within_s)
        run = replace(context.run, locks=locks, exposure=Exposure(), steering=Steering())
        own = replace(context, run=run, worker=replace(context.worker, signal=Signal()))
        try:
            run_window(own, [self.drop])
        except LockNotAcquired as error:
            raise LockNotAcquired(self._consequence, blockers=error.blockers, remedy=self._remedy) from error

    @contextmanager
    def dropped_on_failure(self, context: Context) -> Iterator[None]:
        """If the block fails in any way: the check is dropped first, or the error says that it still exists.

        A lost connection is raised as it is: the step is done again on a new one, and begins with what is
        left.
        """
        try:
            yield
        except psycopg.Error as error:
            if context.work.closed or is_connection_lost(error):
                raise
            if drop_error := self._drop_or_say_why(context):
                raise self._with(translate_error(error), drop_error) from error
            raise
        except OnlineMigrateError as error:
            if drop_error := self._drop_or_say_why(context):
                raise self._with(
                    drop_error if isinstance(drop_error, LeaseLost) else error, drop_error
                ) from error
            raise
        except KeyboardInterrupt as error:
            if drop_error := self._drop_or_say_why(context):
                interrupted = Interrupted(f"cancelled: {context.signal.reason or 'interrupted'}")
                raise self._with(
                    drop_error if isinstance(drop_error, LeaseLost) else interrupted, drop_error
                ) from error
            raise

    def _drop_or_say_why(self, context: Context) -> OnlineMigrateError | None:
        """Why it could not be dropped; None if it was dropped, is valid, or never existed."""
        try:
            if context.work.info.transaction_status is not TransactionStatus.IDLE:
                context.work.rollback()
            if self.is_owed(context):
                self.drop_now(context, within_s=LAST_WAIT_S)
        except OnlineMigrateError as error:
            return error
        except psycopg.Error as error:
            return translate_error(error)
        except KeyboardInterrupt:
            return Interrupted("cancelled while the helper check was dropped")
        return None

    def _with(self, error: OnlineMigrateError, drop_error: OnlineMigrateError) -> OnlineMigrateError:
        """The error, of its kind, with what is left behind; its reader need not know
        what a helper check is.
        """
        said = error.message.replace("; nothing was changed", "")
        if self._consequence not in said:
            reason = drop_error.message.replace("; nothing was changed", "")
            is_said = reason in said or self._consequence in reason
            said += f"\n{self._consequence}" if is_said else f"\n{self._consequence}; {reason}"
            blockers = drop_error.blockers if isinstance(drop_error, LockNotAcquired) else ()
            said += "".join(f"\n  blocked by {b}" for b in blockers)
        error.message, error.args, error.remedy = said, (said,), self._remedy
        return error

    @property
    def _consequence(self) -> str:
        return (
            f"{self.table} keeps the check {self.name}, which is not valid and could not be dropped: until"
            " it is dropped,"
            f" every UPDATE of a row {self.rows} fails with 23514"
        )

    @property
    def _remedy(self) -> str:
        return f"run this now: {self.drop.text}; or run the same command again, which does it first"


def _wider(rules: LockRules, within_s: float | None) -> LockRules:
    return rules.model_copy(
        update={
            "attempts": rules.attempts * WIDER,
            "exposure": rules.exposure * WIDER,
            "exposure_run": max(rules.exposure, rules.exposure_run) * WIDER,
            "lock_wait": rules.lock_wait if within_s is None else min(rules.lock_wait, within_s),
        }
    )
