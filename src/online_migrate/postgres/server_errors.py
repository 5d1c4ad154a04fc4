"""Translates errors of the server into ours, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from online_migrate.errors import (
    ConnectionFailed,
    LeaseLost,
    LockNotAcquired,
    OnlineMigrateError,
    PreflightFailed,
)
from online_migrate.postgres.sqlstate import Trouble, trouble_of

AGAIN = "then run the same command again"


def translate_error(error: psycopg.Error, where: str = "") -> OnlineMigrateError:
    """What the server said, with exit code and remedy.  DETAIL may quote rows, and is left out."""
    said = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    message = f"{where}: {said}" if where else said
    trouble = trouble_of(error)
    if trouble is Trouble.FENCE:
        return LeaseLost(message)  # the runner adds the remedy: it can read who took over
    if trouble in (Trouble.LOST, Trouble.UNAVAILABLE):
        return ConnectionFailed(
            f"the connection to the server was lost: {message}",
            remedy=f"when the server is back, {AGAIN.removeprefix('then ')}: it continues where it stopped",
        )
    if isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
        return LockNotAcquired(message, remedy=f"wait until the session that holds the lock ends, {AGAIN}")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return PreflightFailed(message, remedy=f"GRANT the role that right, {AGAIN}")
    if isinstance(error, psycopg.errors.UndefinedTable):
        return PreflightFailed(
            message,
            remedy="the table was dropped: restore it, or take it out of the plan and run with --accept-changed-plan",
        )
    if isinstance(error, psycopg.errors.QueryCanceled):
        return OnlineMigrateError(
            message,
            remedy=f"another session, or a timeout of the server, cancelled our statement: see the server's log, {AGAIN}",
        )
    return OnlineMigrateError(message, remedy=f"the state is kept; fix the cause, {AGAIN}")


@contextmanager
def translating_fence() -> Iterator[None]:
    """Raise :class:`LeaseLost` if the fence refused a write; other errors of the server pass unchanged."""
    try:
        yield
    except psycopg.Error as error:
        if trouble_of(error) is Trouble.FENCE:
            raise translate_error(error) from error
        raise
