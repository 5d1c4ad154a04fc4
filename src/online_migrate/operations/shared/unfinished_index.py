"""The invalid index that a failed CREATE INDEX CONCURRENTLY leaves: it serves no query, yet each write of the
application maintains it, and a unique one refuses rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from online_migrate.clock import Signal
from online_migrate.errors import Conflict, Interrupted, LeaseLost, OnlineMigrateError
from online_migrate.operations.contract.base import Context
from online_migrate.operations.shared.index_names import drop_concurrently
from online_migrate.operations.shared.steps import run_long
from online_migrate.postgres.server_errors import translate_error
from online_migrate.postgres.sqlstate import ErrorClass, error_class

LAST_WAIT_S = 60.0
"""how long the drop may wait for other sessions where an error ends the step"""

_LEFTOVER = """
SELECT x.indisvalid, (SELECT p.pid FROM pg_stat_progress_create_index p
                       WHERE p.index_relid = x.indexrelid AND p.pid <> pg_backend_pid())
  FROM pg_index x WHERE x.indexrelid = to_regclass(%s)"""


@contextmanager
def nothing_invalid_left(context: Context, name: str) -> Iterator[None]:
    """If the block fails: the invalid index is dropped first, or the error says that it still exists.

    After a lost connection, and after an operator's cancel, the next run drops it: the one has no session for
    it, the other is not to wait.
    """
    try:
        yield
    except (Interrupted, LeaseLost):
        raise
    except psycopg.Error as error:
        if context.work.closed or error_class(error) in (
            ErrorClass.LOST,
            ErrorClass.UNAVAILABLE,
            ErrorClass.FENCE,
        ):
            raise
        if reason := _drop_or_say_why(context, name):
            raise _with(translate_error(error), context, name, reason) from error
        raise
    except OnlineMigrateError as error:
        if reason := _drop_or_say_why(context, name):
            raise _with(error, context, name, reason) from error
        raise


def drop_invalid(context: Context, name: str) -> None:
    """Drop the index if it is invalid.  Raises :class:`Conflict` where another session builds it now."""
    row = context.work.execute(
        _LEFTOVER, [sql.Identifier(context.place.schema, name).as_string(None)]
    ).fetchone()
    if row is None or row[0]:
        return
    if row[1] is not None:
        raise Conflict(
            f"index {name} is being built by another session, pid {row[1]}",
            remedy=f"wait until it ends, or end it: SELECT pg_terminate_backend({row[1]}); then run the same"
            " command again",
        )
    run_long(context, drop_concurrently(context.place, name))


def _drop_or_say_why(context: Context, name: str) -> str:
    """Why it could not be dropped; empty if it was dropped, or never existed."""
    limit_s = min(context.locks.long_statement, LAST_WAIT_S)
    run = replace(context.run, locks=context.locks.model_copy(update={"long_statement": limit_s}))
    own = replace(context, run=run, worker=replace(context.worker, signal=Signal()))
    try:
        if context.work.info.transaction_status is not TransactionStatus.IDLE:
            context.work.rollback()
        drop_invalid(own, name)
    except OnlineMigrateError as error:
        return error.message
    except psycopg.Error as error:
        return translate_error(error).message
    return ""


def _with(error: OnlineMigrateError, context: Context, name: str, reason: str) -> OnlineMigrateError:
    """The error, of its kind, with what is left behind and how to drop it."""
    said = f"{error.message}\nthe invalid index {name} could not be dropped: {reason}"
    drop = drop_concurrently(context.place, name).text
    error.message, error.args = said, (said,)
    error.remedy = f"{error.remedy}; the next run drops the invalid index first, or run this now: {drop}"
    return error
