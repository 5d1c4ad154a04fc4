"""What people ask of a run, from any host: to stop, and to open a gate.  Neither needs the lease."""

from __future__ import annotations

from typing import Final

from online_migrate.journal.states import RequestKind
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.encoding import storable

OPEN_STOP: Final = (
    "SELECT min(by_whom) FROM online_migrate.request"  # noqa: S608  # a constant of ours
    f" WHERE plan = %(plan)s AND kind = '{RequestKind.STOP}' AND taken_at IS NULL"
)
"""who asked for a stop that the runner has not obeyed yet"""


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


def approve(connection: Connection, *, plan: str, stage: str, approved_by: str, note: str = "") -> None:
    """Open the gate of ``stage``; needs the right to write the journal."""
    connection.execute(
        "INSERT INTO online_migrate.approval (plan, stage, approved_by, note) VALUES (%s, %s, %s, %s)",
        [plan, stage, approved_by, storable(connection, note)],
    )
