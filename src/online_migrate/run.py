"""How a request from any host reaches a running step: stop today; pause, resume and tune are to come.

A request is a row of the journal.  The runner looks for it between batches and between steps.
"""

from __future__ import annotations

from online_migrate.postgres.connection import Connection


def request_stop(connection: Connection, *, plan: str, by_whom: str) -> None:
    """Ask the runner of ``plan`` to stop after its current batch."""
    connection.execute(
        "INSERT INTO online_migrate.request (plan, kind, by_whom) VALUES (%s, 'stop', %s)", [plan, by_whom]
    )


def take_stop(connection: Connection, *, plan: str) -> str | None:
    """Who asked for a stop, if anyone; the request is then taken and does not count again."""
    row = connection.execute(
        "UPDATE online_migrate.request SET taken_at = clock_timestamp() WHERE plan = %s AND kind = 'stop' AND taken_at IS NULL"
        " RETURNING by_whom",
        [plan],
    ).fetchone()
    return None if row is None else str(row[0])
