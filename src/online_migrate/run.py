"""How a request from any host reaches a running step.

A request is a row of the journal.  The runner looks for it between batches and between steps.
"""

from __future__ import annotations

from online_migrate.journal.requests import close_stops, read_stop
from online_migrate.postgres.connection import Connection


def take_stop(connection: Connection, *, plan: str) -> str | None:
    """Who asked for a stop, if anyone; the request is then taken and does not count again."""
    who = read_stop(connection, plan=plan)
    if who is not None:
        close_stops(connection, plan=plan)
    return who
