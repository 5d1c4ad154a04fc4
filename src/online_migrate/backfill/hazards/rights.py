"""Rights that a backfill lacks on a table."""

from __future__ import annotations

from collections.abc import Sequence

from online_migrate.findings import Finding, Severity
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection

_VERBS = {"SELECT": "read", "UPDATE": "update"}


def read_right_hazards(
    connection: Connection, table: TableInfo, rights: Sequence[str] = ("SELECT", "UPDATE")
) -> list[Finding]:
    """What keeps the role from these rights on all rows of the table; where there is any, its rows must not
    be read.
    """
    row = connection.execute(
        """SELECT (SELECT bool_and(has_table_privilege(c.oid, r)) FROM unnest(%s::text[]) r),
                  quote_ident(current_user), row_security_active(c.oid), c.relforcerowsecurity
             FROM pg_class c WHERE c.oid = %s""",
        [list(rights), table.oid],
    ).fetchone()
    assert row is not None  # the table was just read
    may, user, hides, is_forced = row
    hazards = []
    if not may:
        fact = f"role {user} may not {' and '.join(_VERBS[r] for r in rights)} {table.name}"
        remedy = f"GRANT {', '.join(rights)} ON {table.full_name} TO {user}"
        hazards.append(Finding(severity=Severity.STOP, code="table_right", fact=fact, remedy=remedy))
    if hides:
        fact = f"row-level security of {table.name} hides rows from role {user}: they would not be filled"
        remedy = f"ALTER ROLE {user} BYPASSRLS"
        if is_forced:
            remedy += f", or ALTER TABLE {table.full_name} NO FORCE ROW LEVEL SECURITY"
        hazards.append(Finding(severity=Severity.STOP, code="row_security", fact=fact, remedy=remedy))
    return hazards
