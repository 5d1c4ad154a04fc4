"""Rights that a backfill or a foreign key lacks on a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


_PARENT = """
SELECT quote_ident(current_user), format('%%I.%%I', n.nspname, c.relname),
       has_table_privilege(c.oid, 'REFERENCES')
         OR coalesce(has_column_privilege(c.oid, a.attnum, 'REFERENCES'), false),
       has_table_privilege(c.oid, 'SELECT')
         OR coalesce(has_column_privilege(c.oid, a.attnum, 'SELECT'), false)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %s AND NOT a.attisdropped
 WHERE c.oid = %s"""
_FORCED = """
SELECT quote_ident(current_user), format('%%I.%%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY (%s) AND row_security_active(c.oid) AND pg_has_role(c.relowner, 'USAGE')"""


def read_parent_hazards(connection: Connection, parent: TableInfo, column: str | None) -> Iterator[Finding]:
    """Rights that a foreign key lacks on its parent: REFERENCES, and SELECT for a validation in one query.

    ``column`` is the referenced one; None: it is not known, and a right on the whole table is looked for.
    Without SELECT the server validates row by row, as the parent's owner (RI_Initial_Check in ri_triggers.c).
    """
    row = connection.execute(_PARENT, [column, parent.oid]).fetchone()
    assert row is not None  # the table was just read
    user, name, may_reference, may_read = row
    remedy = f"GRANT REFERENCES, SELECT ON {name} TO {user}"
    if not may_reference:
        fact = f"role {user} may not reference {parent.name}: the server refuses the foreign key"
        yield Finding(severity=Severity.STOP, code="references_right", fact=fact, remedy=remedy)
    elif not may_read:
        fact = (
            f"role {user} may not read {parent.name}: rows without a parent are not looked for, and VALIDATE"
            " looks each row up on its own"
        )
        yield Finding(severity=Severity.WARN, code="parent_unread", fact=fact, remedy=remedy)


def read_forced_hazards(connection: Connection, tables: Sequence[TableInfo]) -> Iterator[Finding]:
    """Forced row-level security on a side of a foreign key: the query that validates it is refused.

    For a role that does not own the table the server validates row by row, as its owner, without policies.
    """
    for user, name in connection.execute(_FORCED, [[t.oid for t in tables]]).fetchall():
        fact = (
            f"row-level security of {name} is forced on its owner: the server refuses to validate a"
            " foreign key"
        )
        remedy = f"ALTER ROLE {user} BYPASSRLS, or ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY"
        yield Finding(severity=Severity.STOP, code="row_security", fact=fact, remedy=remedy)
