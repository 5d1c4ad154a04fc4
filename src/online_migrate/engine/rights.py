"""The rights that a run needs, each with the GRANT that gives it."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.engine.survey import Survey
from online_migrate.operations.base import Finding, Severity


def check_rights(seen: Survey) -> Iterator[Finding]:
    """A finding for each right that the role lacks."""
    connection = seen.catalog.connection
    row = connection.execute(
        "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), has_database_privilege(current_database(), 'CREATE'),"
        " quote_ident(current_user), quote_ident(current_database()), has_schema_privilege(%s, 'CREATE'),"
        " pg_has_role(current_user, 'pg_signal_backend', 'USAGE'), has_database_privilege(current_database(), 'TEMP')",
        [seen.plan.schema],
    ).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    sees, may_create, user, database, may_make_tables, may_signal, may_make_temporary = row
    if not sees:
        fact = f"{user} does not see other sessions: who is in the way of a lock, and how old snapshots are"
        yield Finding(
            severity=Severity.STOP, code="blind", fact=fact, remedy=f"GRANT pg_read_all_stats TO {user}"
        )
    if seen.plan.locks.end_blockers is not None and not may_signal:
        fact = f"{user} may not end other sessions, which locks.end_blockers asks for"
        remedy = f"GRANT pg_signal_backend TO {user}, or leave end_blockers out"
        yield Finding(severity=Severity.STOP, code="signal_right", fact=fact, remedy=remedy)
    if seen.journal is None and not may_create:
        fact = f"{user} may not create the journal's schema online_migrate in {database}"
        yield Finding(
            severity=Severity.STOP,
            code="journal_right",
            fact=fact,
            remedy=f"GRANT CREATE ON DATABASE {database} TO {user}",
        )
    open_kinds = {s.spec.operation for s in seen.steps if s.key not in seen.done}
    if seen.journal is not None and not may_create and "create_tables" in open_kinds:
        fact = f"{user} may not create a schema in {database}, in which tables that are there are compared with the plan's and rolled back"
        yield Finding(
            severity=Severity.STOP,
            code="scratch_right",
            fact=fact,
            remedy=f"GRANT CREATE ON DATABASE {database} TO {user}",
        )
    if not may_make_temporary and "add_column" in open_kinds:
        fact = f"{user} may not create temporary tables in {database}, in which a column's type and default are tried and rolled back"
        yield Finding(
            severity=Severity.STOP,
            code="temporary_right",
            fact=fact,
            remedy=f"GRANT TEMPORARY ON DATABASE {database} TO {user}",
        )
    if not may_make_tables:
        fact = f"{user} may not create tables and indexes in schema {seen.plan.schema}"
        yield Finding(
            severity=Severity.STOP,
            code="schema_right",
            fact=fact,
            remedy=f"GRANT CREATE ON SCHEMA {seen.plan.schema} TO {user}",
        )
    tables = sorted({s.table for s in seen.steps if s.table is not None})
    owners = {t.owner: t for n in tables if (t := seen.catalog.table(n)) is not None}
    for owner, example in owners.items():
        row = connection.execute(
            "SELECT pg_has_role(current_user, rolname, 'USAGE'), rolsuper FROM pg_roles WHERE rolname = %s",
            [owner],
        ).fetchone()
        if row is not None and not row[0]:
            fact = f"{user} may not alter tables of {owner}, e.g. {example.name}"
            yield Finding(
                severity=Severity.STOP,
                code="owner_right",
                fact=fact,
                remedy=_remedy(owner, user, is_superuser=row[1]),
            )


def _remedy(owner: str, user: str, *, is_superuser: bool) -> str:
    """A superuser's name is nothing to hand out."""
    if is_superuser:
        return f"{owner} is a superuser: give the tables to a role of their own (ALTER TABLE … OWNER TO), and that role to {user}"
    return f"GRANT {owner} TO {user}"
