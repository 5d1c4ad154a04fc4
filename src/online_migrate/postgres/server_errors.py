"""Translates errors of the server into ours, in one place: none of them is a defect of ours, exit code 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg

from online_migrate.errors import (
    ConnectionFailed,
    Defect,
    LeaseLost,
    LockNotAcquired,
    OnlineMigrateError,
    ResourcesExhausted,
    ServerRefused,
    VerificationFailed,
)
from online_migrate.postgres.sqlstate import CURSOR_MOVED, NOT_AS_PROMISED, ErrorClass, error_class

AGAIN: Final = "then run the same command again"

_GRANT: Final = "grant that right to the role (online-migrate grants PLAN prints all that it needs)"
_WAIT: Final = f"wait until the session that holds the lock ends, {AGAIN}"
_ROWS: Final = f"find the rows that the message names, fix them, {AGAIN}"
_DROPPED: Final = (
    "restore what was dropped or renamed, or take it out of the plan and run with --accept-changed-plan"
)
_DAMAGED: Final = (
    "the server reports damaged data: stop writing to this table, check it with pg_amcheck, and restore or"
    f" REINDEX it; {AGAIN}"
)

MEANINGS: Final[Mapping[str, tuple[type[OnlineMigrateError], str]]] = {
    "08": (ConnectionFailed, f"when the server can be reached, {AGAIN.removeprefix('then ')}"),
    "22021": (
        ServerRefused,
        f"the database keeps text that is not UTF-8 (encoding SQL_ASCII): rename or rewrite it, {AGAIN}",
    ),
    "22P05": (
        ServerRefused,
        f"the database's encoding lacks a character: write it otherwise, {AGAIN}",
    ),
    "23": (VerificationFailed, _ROWS),
    "28": (ConnectionFailed, f"check the role, its password and pg_hba.conf, {AGAIN}"),
    "40": (LockNotAcquired, f"another transaction changed the same rows; wait until it ends, {AGAIN}"),
    "40003": (
        ConnectionFailed,
        f"the outcome of the commit is unknown; {AGAIN}: it reads the outcome from the journal",
    ),
    "40P01": (LockNotAcquired, _WAIT),
    "42501": (ServerRefused, f"{_GRANT}, {AGAIN}"),
    "42P01": (ServerRefused, _DROPPED),
    "42703": (ServerRefused, _DROPPED),
    "42883": (ServerRefused, _DROPPED),
    "42704": (ServerRefused, _DROPPED),
    "3F000": (ServerRefused, _DROPPED),
    "53": (ResourcesExhausted, f"free the resource that the message names, {AGAIN}"),
    "53100": (
        ResourcesExhausted,
        f"free disk space on the server, also where its WAL and temporary files are, {AGAIN}",
    ),
    "53200": (
        ResourcesExhausted,
        f"free memory on the server; for `out of shared memory` raise max_locks_per_transaction; {AGAIN}",
    ),
    "53300": (
        ResourcesExhausted,
        f"end sessions that are not needed, or raise max_connections or the role's CONNECTION LIMIT, {AGAIN}",
    ),
    "53400": (ResourcesExhausted, f"raise the limit that the message names (temp_file_limit …), {AGAIN}"),
    "54": (
        ServerRefused,
        f"change the step or the rows so that they fit PostgreSQL's limits (manual, appendix K), {AGAIN}",
    ),
    "54001": (ServerRefused, f"simplify the expression or the trigger, or raise max_stack_depth, {AGAIN}"),
    "55P03": (LockNotAcquired, _WAIT),
    "55006": (LockNotAcquired, f"wait until the session that uses the object ends, {AGAIN}"),
    "57014": (
        ServerRefused,
        (
            "another session, or a timeout of the server, cancelled our statement: see the server's log,"
            f" {AGAIN}"
        ),
    ),
    "58": (ResourcesExhausted, f"the server's storage or system fails: see the server's log, {AGAIN}"),
    "F0": (ResourcesExhausted, f"the server's configuration fails: see the server's log, {AGAIN}"),
    "XX000": (ServerRefused, f"an internal error of the server: see the server's log, {AGAIN}"),
    "XX001": (VerificationFailed, _DAMAGED),
    "XX002": (VerificationFailed, _DAMAGED),
    NOT_AS_PROMISED: (VerificationFailed, f"see who changed it, repair it, {AGAIN}"),
    CURSOR_MOVED: (VerificationFailed, f"another session moved the backfill's cursor: find it, {AGAIN}"),
}
"""by SQLSTATE, or by its class (manual, appendix A): the error that it becomes, and the remedy"""
_OTHERWISE: Final = (ServerRefused, f"the state is kept; fix the cause, {AGAIN}")


def translate_error(error: psycopg.Error, where: str = "") -> OnlineMigrateError:
    """What the server said, with exit code and remedy.  DETAIL may quote rows, and is left out."""
    said = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    message = f"{where}: {said}" if where else said
    trouble, state = error_class(error), error.sqlstate
    if trouble is ErrorClass.FENCE:
        return LeaseLost(message)  # the runner adds the remedy: it can read who took over
    if trouble is ErrorClass.LOST or (trouble is ErrorClass.UNAVAILABLE and state not in MEANINGS):
        return ConnectionFailed(
            f"the connection to the server was lost: {message}",
            remedy=f"when the server is back, {AGAIN.removeprefix('then ')}: it continues where it stopped",
        )
    if state is None and not isinstance(error, psycopg.DataError | psycopg.NotSupportedError):
        return Defect(
            f"a defect of online-migrate: {type(error).__name__}: {message}"
        )  # psycopg refused our call
    kind, remedy = MEANINGS.get(state or "") or MEANINGS.get((state or "")[:2]) or _OTHERWISE
    return kind(message, remedy=remedy)


@contextmanager
def translating_fence() -> Iterator[None]:
    """Raise :class:`LeaseLost` if the fence refused a write; other errors of the server pass unchanged."""
    try:
        yield
    except psycopg.Error as error:
        if error_class(error) is ErrorClass.FENCE:
            raise translate_error(error) from error
        raise
