"""What people ask of a run, from any host: to stop, and to open a gate.  Neither needs the lease."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from online_migrate.journal.lease import person
from online_migrate.journal.states import RequestKind
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.encoding import storable

OPEN_STOP: Final = (
    "SELECT min(by_whom) FROM online_migrate.request"  # noqa: S608  # a constant of ours
    f" WHERE plan = %(plan)s AND kind = '{RequestKind.STOP}' AND taken_at IS NULL"
)
"""who asked for a stop that the runner has not obeyed yet"""


IN_FORCE: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())"
"""of an approval: it opens its gate"""

_REVOKE: Final = (
    "UPDATE online_migrate.approval SET revoked_at = clock_timestamp(), revoked_by = %s, revoke_note = %s"  # noqa: S608  # a constant of ours
    f" WHERE plan = %s AND stage = %s AND {IN_FORCE} RETURNING approved_by"
)

_CLOSE_STOPS: Final = (
    "UPDATE online_migrate.request SET taken_at = clock_timestamp()"
    " WHERE plan = %s AND kind = %s AND taken_at IS NULL"
)
_CLOSE_EARLIER_STOPS: Final = f"{_CLOSE_STOPS} AND asked_at < (SELECT since FROM online_migrate.heartbeat)"  # noqa: S608


def request_stop(connection: Connection, *, plan: str, requested_by: str) -> None:
    """Ask the runner of ``plan`` to stop after its current batch."""
    connection.execute(
        "INSERT INTO online_migrate.request (plan, kind, by_whom) VALUES (%s, %s, %s)",
        [plan, RequestKind.STOP, requested_by],
    )


def read_stop(connection: Connection, *, plan: str) -> str | None:
    """The user who asked the runner of ``plan`` to stop, or None.  The request stays open until
    :func:`close_stops`.
    """
    row = connection.execute(OPEN_STOP, {"plan": plan}).fetchone()
    return None if row is None or row[0] is None else str(row[0])


def close_stops(connection: Connection, *, plan: str) -> None:
    """Mark the requests to stop ``plan`` as obeyed: its runner has stopped."""
    connection.execute(_CLOSE_STOPS, [plan, RequestKind.STOP])


def close_earlier_stops(connection: Connection, *, plan: str) -> None:
    """Mark those requests as obeyed that were made before the lease was taken: they were not meant for this
    runner.
    """
    connection.execute(_CLOSE_EARLIER_STOPS, [plan, RequestKind.STOP])


def approve(
    connection: Connection,
    *,
    plan: str,
    stage: str,
    approved_by: str,
    note: str = "",
    expires_s: float | None = None,
) -> datetime | None:
    """Open the gate of ``stage``, for ``expires_s`` seconds if given; returns until when.

    Needs the right to write the journal.
    """
    row = connection.execute(
        "INSERT INTO online_migrate.approval (plan, stage, approved_by, note, account, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s)) RETURNING expires_at",
        [
            plan,
            stage,
            storable(connection, approved_by),
            storable(connection, note),
            storable(connection, person()),
            expires_s,
        ],
    ).fetchone()
    return None if row is None else row[0]


def revoke(
    connection: Connection, *, run_id: int, plan: str, stage: str, revoked_by: str, note: str = ""
) -> tuple[str, ...] | None:
    """Take back the approvals of ``stage`` that are in force; returns whose they were.

    None, and nothing is changed, if the stage has begun: the runner passes a gate under the same row lock.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT started_at IS NOT NULL FROM online_migrate.stage WHERE run_id = %s AND stage = %s"
            " FOR UPDATE",
            [run_id, stage],
        ).fetchone()
        if row is not None and row[0]:
            return None
        rows = connection.execute(
            _REVOKE,
            [storable(connection, revoked_by), storable(connection, note), plan, stage],
        ).fetchall()
    return tuple(str(name) for (name,) in rows)
