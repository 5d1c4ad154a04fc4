"""The rights that the role lacks, each with the GRANT that gives it; and rights that are one too many."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.engine.rights import Right, needed_rights
from online_migrate.engine.role_rights import RoleRights
from online_migrate.engine.survey import Survey
from online_migrate.findings import (
    Finding,
    Severity,
)

MANUAL = "https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATTERNS"

_MAY_CREATE = """
SELECT coalesce(quote_ident(r.rolname), 'PUBLIC'), quote_ident(n.nspname)
  FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
  LEFT JOIN pg_roles r ON r.oid = a.grantee
 WHERE n.nspname = %(schema)s AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
   AND NOT coalesce(r.rolsuper, false) AND coalesce(r.rolname, '') <> ALL (%(known)s)
 ORDER BY 1"""


def check_rights(seen: Survey) -> Iterator[Finding]:
    """A finding for each right that is missing, and for rights that others, or the role, need not have."""
    role = RoleRights.read(seen.catalog.connection)
    rights = needed_rights(seen, role, changes=seen.open_changes)
    yield from (_finding(right) for right in rights if not right.is_held and not right.is_found_by_step)
    yield from _others_may_create(seen, role)
    if role.is_superuser:
        yield Finding(
            severity=Severity.WARN,
            code="superuser",
            fact=f"{role} is a superuser, and the plan needs no superuser",
            remedy=f"run it as a role of its own: online-migrate grants {seen.plan.path} prints its rights",
        )


def _finding(right: Right) -> Finding:
    remedy = f"{right.grant}{right.otherwise}"
    return Finding(severity=Severity.STOP, code=right.code, fact=right.fact, remedy=remedy)


def _others_may_create(seen: Survey, role: RoleRights) -> Iterator[Finding]:
    """Who may put functions and operators beside the plan's tables: role and owners of tables aside."""
    tables = [s.table for s in seen.steps if s.table is not None]
    known = [role.name, *(o.name for o in role.owners(seen.plan.schema, tables))]
    rows = seen.catalog.connection.execute(
        _MAY_CREATE, {"schema": seen.plan.schema, "known": known}
    ).fetchall()
    for other, schema in rows:
        yield Finding(
            severity=Severity.WARN,
            code="schema_open",
            fact=f"{other} may create in schema {schema}: functions and operators there can be called instead"
            " of PostgreSQL's own, with the rights of the session that has the schema on its search_path",
            remedy=f"REVOKE CREATE ON SCHEMA {schema} FROM {other}",
            manual=MANUAL,
        )
