"""Is there room for our sessions?  Found at check: a run that meets "too many connections" in its middle
waits for one.
"""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection

SHARED = 4
"""lease, journal, watch, and one for history and page; the check's own is closed before work begins"""

_ROOM = """
SELECT quote_ident(r.rolname), r.rolconnlimit, count(a.pid) FILTER (WHERE a.usename = r.rolname),
       quote_ident(d.datname), d.datconnlimit, count(a.pid) FILTER (WHERE a.datname = d.datname),
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
       count(a.pid) FILTER (WHERE a.backend_type = 'client backend')
  FROM pg_roles r, pg_database d, pg_stat_activity a
 WHERE r.rolname = session_user AND NOT r.rolsuper AND d.datname = current_database()
   AND coalesce(a.application_name, '') NOT LIKE 'online-migrate%'
 GROUP BY r.rolname, r.rolconnlimit, d.datname, d.datconnlimit"""
"""limits of role and database do not hold for a superuser, and -1 is none (manual, CREATE ROLE, CREATE
DATABASE)"""


def check_connections(plan: Plan, connection: Connection) -> Iterator[Finding]:
    """The limits that leave no room for all sessions of a run beside those of others that are open now."""
    wanted = SHARED + max(stage.pace.workers for stage in plan.stages)
    row = connection.execute(_ROOM).fetchone()
    if row is None:
        return
    role, role_limit, of_role, base, base_limit, in_base, most, clients = row
    for where, limit, open_now, remedy in (
        (f"role {role}", role_limit, of_role, f"ALTER ROLE {role} CONNECTION LIMIT {of_role + wanted}"),
        (f"database {base}", base_limit, in_base, (f"ALTER DATABASE {base} CONNECTION LIMIT"
            f" {in_base + wanted}")),
        ("the server", most, clients, "close sessions that idle, or raise max_connections"),
    ):  # fmt: skip
        if 0 <= limit < open_now + wanted:
            fact = (
                f"a run has {wanted} sessions, and {where} lets {limit} in, of which {open_now} are taken"
                " by others now"
            )
            severity = Severity.STOP if limit < wanted else Severity.WARN
            yield Finding(severity=severity, code="connection_limit", fact=fact, remedy=remedy)
