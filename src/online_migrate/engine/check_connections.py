"""Is there room for our sessions?  Found at check: a run that meets "too many connections" in its middle waits for one."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.operations.base import Finding, Severity
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection

SHARED = 5
"""lease, journal, watch, history and page together, and the check's own, which is closed before batches begin"""

_ROOM = """
SELECT quote_ident(r.rolname), r.rolconnlimit, count(a.pid) FILTER (WHERE a.usename = r.rolname),
       quote_ident(d.datname), d.datconnlimit, count(a.pid) FILTER (WHERE a.datname = d.datname),
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
       count(a.pid) FILTER (WHERE a.backend_type = 'client backend')
  FROM pg_roles r, pg_database d, pg_stat_activity a
 WHERE r.rolname = session_user AND NOT r.rolsuper AND d.datname = current_database()
 GROUP BY r.rolname, r.rolconnlimit, d.datname, d.datconnlimit"""
"""limits of role and database do not hold for a superuser, and -1 is none (manual, CREATE ROLE, CREATE DATABASE)"""


def check_connections(plan: Plan, connection: Connection) -> Iterator[Finding]:
    """The limits that leave no room for all sessions of a run beside those that are open now, this one among them."""
    wanted = SHARED + max(stage.pace.workers for stage in plan.stages)
    row = connection.execute(_ROOM).fetchone()
    if row is None:
        return
    role, role_limit, of_role, base, base_limit, in_base, most, clients = row
    for where, limit, open_now, remedy in (
        (f"role {role}", role_limit, of_role, f"ALTER ROLE {role} CONNECTION LIMIT {of_role - 1 + wanted}"),
        (f"database {base}", base_limit, in_base, f"ALTER DATABASE {base} CONNECTION LIMIT {in_base - 1 + wanted}"),
        ("the server", most, clients, "close sessions that idle, or raise max_connections"),
    ):  # fmt: skip
        if 0 <= limit < open_now - 1 + wanted:
            fact = f"a run has {wanted} sessions, and {where} lets {limit} in, of which {open_now - 1} are taken now"
            severity = Severity.STOP if limit < wanted else Severity.WARN
            yield Finding(severity=severity, code="connection_limit", fact=fact, remedy=remedy)
