"""What people ask of a run, from any host: to stop, to pause, and to open a gate.  None needs the lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from online_migrate.journal.lease import person
from online_migrate.journal.states import RequestKind
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.encoding import storable

OPEN_STOP: Final = (
    "SELECT min(by_whom) FROM online_migrate.request"  # noqa: S608  # a constant of ours
    f" WHERE plan = %(plan)s AND kind IN ('{RequestKind.STOP}', '{RequestKind.ABORT}') AND taken_at IS NULL"
)
"""who asked for a stop or an abort that the runner has not obeyed yet"""
PAUSES: Final = (
    "SELECT kind, by_whom, asked_at, taken_at, nullif(about, '')::timestamptz,"  # noqa: S608  # constants of ours
    " coalesce(nullif(about, '')::timestamptz <= clock_timestamp(), false)"
    " FROM online_migrate.request WHERE plan = %(plan)s"
    f" AND kind IN ('{RequestKind.PAUSE}', '{RequestKind.RESUME}') ORDER BY request_id DESC LIMIT 1"
)
"""for :func:`to_pause`: the last word on whether the plan is paused; ``about`` of a pause says until when"""

IN_FORCE: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())"
"""of an approval: it opens its gate"""

_REVOKE: Final = (
    "UPDATE online_migrate.approval SET revoked_at = clock_timestamp(), revoked_by = %s, revoke_note = %s"  # noqa: S608  # a constant of ours
    f" WHERE plan = %s AND stage = %s AND {IN_FORCE} RETURNING approved_by"
)

_STOPS: Final = [RequestKind.STOP, RequestKind.ABORT]
_CLOSE_STOPS: Final = (
    "UPDATE online_migrate.request SET taken_at = clock_timestamp()"
    " WHERE plan = %s AND kind = ANY (%s) AND taken_at IS NULL"
)
_CLOSE_EARLIER_STOPS: Final = f"{_CLOSE_STOPS} AND asked_at < (SELECT since FROM online_migrate.heartbeat)"  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The newest request to pause a plan or to resume it."""

    kind: RequestKind
    by: str
    since: datetime
    """when it was requested, by the server's clock"""
    taken_at: datetime | None
    """when the runner had paused, or continued"""
    until: datetime | None
    """when a pause ends by itself"""
    is_over: bool
    """``until`` has passed"""

    @property
    def is_in_force(self) -> bool:
        return self.kind is RequestKind.PAUSE and not self.is_over


def to_pause(rows: Sequence[tuple[Any, ...]]) -> Pause | None:
    """What :data:`PAUSES` selects."""
    for kind, by, since, taken_at, until, is_over in rows:
        return Pause(
            kind=RequestKind(kind), by=by, since=since, taken_at=taken_at, until=until, is_over=is_over
        )
    return None


def request_pause(connection: Connection, *, plan: str, by: str, for_s: float | None = None) -> None:
    """Pause ``plan``, for ``for_s`` seconds if given: its runner, or the next one, holds between two
    transactions.
    """
    connection.execute(
        "INSERT INTO online_migrate.request (plan, kind, by_whom, about) VALUES (%s, %s, %s, coalesce("
        "to_char(clock_timestamp() AT TIME ZONE 'UTC' + make_interval(secs => %s),"
        " 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), ''))",
        [plan, RequestKind.PAUSE, storable(connection, by), for_s],
    )


def request_resume(connection: Connection, *, plan: str, by: str) -> None:
    """End the pause of ``plan``."""
    connection.execute(
        "INSERT INTO online_migrate.request (plan, kind, by_whom) VALUES (%s, %s, %s)",
        [plan, RequestKind.RESUME, storable(connection, by)],
    )


def read_pause(connection: Connection, *, plan: str) -> Pause | None:
    """The newest request to pause or resume; None if the plan was never paused."""
    return to_pause(connection.execute(PAUSES, {"plan": plan}).fetchall())


def take_pauses(connection: Connection, *, plan: str) -> None:
    """Note that the runner does what the newest of these requests says."""
    connection.execute(
        "UPDATE online_migrate.request SET taken_at = clock_timestamp() WHERE plan = %s AND taken_at IS NULL"
        " AND kind = ANY (%s)",
        [plan, [RequestKind.PAUSE, RequestKind.RESUME]],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissal:
    """A standby that the run need not wait for, if it was lost before."""

    standby: str
    by: str
    at_s: float
    """by the server's clock, since 1970"""
    is_taken: bool


def request_dismissal(connection: Connection, *, plan: str, standby: str, by: str) -> None:
    """Dismiss a standby that is lost now."""
    connection.execute(
        "INSERT INTO online_migrate.request (plan, kind, by_whom, about) VALUES (%s, %s, %s, %s)",
        [plan, RequestKind.DISMISS_STANDBY, storable(connection, by), storable(connection, standby)],
    )


def read_dismissals(connection: Connection, *, plan: str) -> tuple[Dismissal, ...]:
    """The newest of each standby."""
    rows = connection.execute(
        "SELECT DISTINCT ON (about) about, by_whom, extract(epoch FROM asked_at)::float8,"
        " taken_at IS NOT NULL FROM online_migrate.request"
        " WHERE plan = %s AND kind = %s ORDER BY about, request_id DESC",
        [plan, RequestKind.DISMISS_STANDBY],
    )
    return tuple(Dismissal(standby=name, by=by, at_s=at, is_taken=taken) for name, by, at, taken in rows)


def take_dismissals(connection: Connection, *, plan: str) -> None:
    """Note that the runner knows them."""
    connection.execute(
        "UPDATE online_migrate.request SET taken_at = clock_timestamp()"
        " WHERE plan = %s AND kind = %s AND taken_at IS NULL",
        [plan, RequestKind.DISMISS_STANDBY],
    )


def are_dismissals_taken(connection: Connection, *, plan: str) -> bool:
    """Does the runner know all of them?"""
    return all(d.is_taken for d in read_dismissals(connection, plan=plan))


def request_stop(
    connection: Connection, *, plan: str, requested_by: str, kind: RequestKind = RequestKind.STOP
) -> None:
    """Ask the runner of ``plan`` to stop after its current batch; an ABORT also cancels a long statement."""
    connection.execute(
        "INSERT INTO online_migrate.request (plan, kind, by_whom) VALUES (%s, %s, %s)",
        [plan, kind, storable(connection, requested_by)],
    )


def read_stop(connection: Connection, *, plan: str) -> str | None:
    """The user who asked the runner of ``plan`` to stop, or None.  The request stays open until
    :func:`close_stops`.
    """
    row = connection.execute(OPEN_STOP, {"plan": plan}).fetchone()
    return None if row is None or row[0] is None else str(row[0])


def read_abort(connection: Connection, *, plan: str) -> bool:
    """Is one of the open requests an ABORT?"""
    row = connection.execute(
        "SELECT 1 FROM online_migrate.request WHERE plan = %s AND kind = %s AND taken_at IS NULL LIMIT 1",
        [plan, RequestKind.ABORT],
    ).fetchone()
    return row is not None


def close_stops(connection: Connection, *, plan: str) -> None:
    """Mark the requests to stop ``plan`` as obeyed: its runner has stopped."""
    connection.execute(_CLOSE_STOPS, [plan, _STOPS])


def close_earlier_stops(connection: Connection, *, plan: str) -> None:
    """Mark those requests as obeyed that were made before the lease was taken: they were not meant for this
    runner.
    """
    connection.execute(_CLOSE_EARLIER_STOPS, [plan, _STOPS])


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
