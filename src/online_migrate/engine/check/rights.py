"""The rights that a run needs, each with the GRANT that gives it."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.engine.survey import Survey
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.effects import AddsColumn, CreatesTable

_RIGHTS = """
SELECT quote_ident(current_user), quote_ident(current_database()), pg_has_role(current_user,
  'pg_read_all_stats', 'USAGE'),
       pg_has_role(current_user, 'pg_signal_backend', 'USAGE'), has_database_privilege(current_database(),
         'CREATE'),
       has_database_privilege(current_database(), 'TEMP'), has_schema_privilege(%s, 'CREATE')"""


def check_rights(seen: Survey) -> Iterator[Finding]:
    """A finding for each right that the role lacks."""
    row = seen.catalog.connection.execute(_RIGHTS, [seen.plan.schema]).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    user, database, sees, may_signal, may_create, may_make_temporary, may_make_tables = row
    kinds = {type(c.effect) for c in seen.open_changes}
    schema = seen.plan.schema
    on_database = f"ON DATABASE {database} TO {user}"
    if not sees:
        fact = (
            f"{user} cannot see other sessions: which of them block a lock, and how old their snapshots are"
        )
        yield _stop("blind", fact, f"GRANT pg_read_all_stats TO {user}")
    if seen.plan.locks.end_blockers is not None and not may_signal:
        fact = f"{user} may not end other sessions, which locks.end_blockers asks for"
        yield _stop("signal_right", fact, f"GRANT pg_signal_backend TO {user}, or leave end_blockers out")
    if seen.journal is None and not may_create:
        fact = f"{user} may not create the journal's schema online_migrate in {database}"
        yield _stop("journal_right", fact, f"GRANT CREATE {on_database}")
    if seen.journal is not None and not may_create and CreatesTable in kinds:
        fact = (
            f"{user} may not create a schema in {database}, in which tables that are there are compared"
            " with the plan's and rolled back"
        )
        yield _stop("scratch_right", fact, f"GRANT CREATE {on_database}")
    if not may_make_temporary and AddsColumn in kinds:
        fact = (
            f"{user} may not create temporary tables in {database}, in which a column's type and default"
            " are tried and rolled back"
        )
        yield _stop("temporary_right", fact, f"GRANT TEMPORARY {on_database}")
    if not may_make_tables:
        fact = f"{user} may not create tables and indexes in schema {schema}"
        yield _stop("schema_right", fact, f"GRANT CREATE ON SCHEMA {schema} TO {user}")
    yield from _owners(seen, user)


def _owners(seen: Survey, user: str) -> Iterator[Finding]:
    """Whose tables the role may not alter."""
    names = sorted({s.table for s in seen.steps if s.table is not None})
    owners = {t.owner: t for n in names if (t := seen.catalog.table(n)) is not None}
    for owner, example in owners.items():
        row = seen.catalog.connection.execute(
            "SELECT pg_has_role(current_user, rolname, 'USAGE'), rolsuper FROM pg_roles WHERE rolname = %s",
            [owner],
        ).fetchone()
        if row is not None and not row[0]:
            fact = f"{user} may not alter tables of {owner}, e.g. {example.name}"
            yield _stop("owner_right", fact, _remedy(owner, user, is_superuser=row[1]))


def _stop(code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.STOP, code=code, fact=fact, remedy=remedy)


def _remedy(owner: str, user: str, *, is_superuser: bool) -> str:
    """A superuser's name is nothing to hand out."""
    if is_superuser:
        return (
            f"{owner} is a superuser: give the tables to a role of their own (ALTER TABLE … OWNER TO),"
            f" and that role to {user}"
        )
    return f"GRANT {owner} TO {user}"
