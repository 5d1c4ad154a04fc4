"""Findings about standbys: ACCESS EXCLUSIVE is replayed there, so their readers have to be checked, or named
as a risk.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from online_migrate.errors import OnlineMigrateError
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.postgres.standbys import open_standby

MANUAL = "https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CONFLICT"

_STREAMING = """
SELECT string_agg(coalesce(nullif(application_name, ''), '?') || coalesce(' ' || host(client_addr), ''), ', ')
  FROM pg_stat_replication WHERE state <> 'backup'"""

_ON_STANDBY = """
SELECT pg_is_in_recovery(), pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
  quote_ident(current_user),
       current_setting('max_standby_streaming_delay')"""


def find_standbys(plan: Plan, connection: Connection) -> Iterator[Finding]:
    """Standbys that stream and that the plan does not name; of those that it names, who does not answer or
    sees nothing.
    """
    row = connection.execute(_STREAMING).fetchone()
    if row is not None and row[0] and not plan.locks.standbys:
        fact = (
            f"standbys ({row[0]}) replay our ACCESS EXCLUSIVE locks, and the plan names none: a reader there"
            " waits behind"
            " one, and behind any older reader, until max_standby_streaming_delay ends that one"
        )
        remedy = "name them, so that their readers are checked: locks: {standbys: [host=…]}"
        yield Finding(severity=Severity.WARN, code="standbys", fact=fact, remedy=remedy, manual=MANUAL)
    for name in plan.locks.standbys:
        yield from _check_standby(plan, connection, name)


def _check_standby(plan: Plan, connection: Connection, name: str) -> Iterator[Finding]:
    try:
        dsn = (
            f"{connection.info.dsn} password={_quoted(connection.info.password)}"
            if connection.info.password
            else connection.info.dsn
        )
        with open_standby(Connector(dsn=dsn, schema=plan.schema), name) as session:
            row = session.execute(_ON_STANDBY).fetchone()
    except (psycopg.Error, OnlineMigrateError) as error:
        fact = f"standby {name} does not answer: {str(error).splitlines()[0]}"
        remedy = "correct locks.standbys; while one does not answer, no ACCESS EXCLUSIVE is asked for"
        yield Finding(severity=Severity.STOP, code="standby_silent", fact=fact, remedy=remedy)
        return
    assert row is not None  # a SELECT without FROM has one row
    in_recovery, sees, user, _ = row
    if not in_recovery:
        fact = f"{name} of locks.standbys is no standby"
        yield Finding(severity=Severity.STOP, code="no_standby", fact=fact, remedy="correct locks.standbys")
    elif not sees:
        fact = f"{user} does not see other sessions of standby {name}"
        yield Finding(
            severity=Severity.STOP,
            code="blind_standby",
            fact=fact,
            remedy=f"GRANT pg_read_all_stats TO {user}",
        )


def _quoted(password: str) -> str:
    text = password.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
