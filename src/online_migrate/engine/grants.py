"""The script that makes the role that a plan needs, and no more."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from online_migrate.engine.rights import needed_rights
from online_migrate.engine.role_rights import RoleRights
from online_migrate.engine.survey import Survey
from online_migrate.operations.contract.effects import AddsForeignKey, CreatesIndex, CreatesTable, MakesRow
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.plan.expand import expand, listed_tables
from online_migrate.plan.model import Plan


def grant_lines(seen: Survey, name: str) -> Iterator[str]:
    """Each right with what the role may not do without it; one statement a line."""
    role = RoleRights.read(seen.catalog.connection, name)
    yield f"-- The role that plan {seen.plan.name} needs in database {role.database}, and no more."
    yield "-- Run it as a superuser, or as a role that may grant what is listed."
    if role.exists:
        yield f"-- Role {role} exists."
    else:
        yield f"CREATE ROLE {role} LOGIN;  -- then set its password: \\password {role}"
    rights = {r.grant: r for r in needed_rights(seen, role, changes=tuple(seen.effects.changes))}
    for grant, right in rights.items():
        is_statement = grant.startswith(("GRANT ", "ALTER "))
        yield f"-- Otherwise {right.fact}."
        yield f"{grant};" if is_statement else f"-- Not possible by GRANT: {grant}."
    yield from _unknown(seen.plan)


def grant_lines_without_database(plan: Plan, name: str) -> Iterator[str]:
    """What the plan alone says; names that only the database knows are in angle brackets, in comments."""
    role = sql.Identifier(name).as_string(None)
    schema = sql.Identifier(plan.schema).as_string(None)
    effects = effects_of(plan, expand(plan, listed_tables(plan), OPERATIONS))
    kinds = {type(c.effect) for c in effects.changes}
    yield f"-- The role that plan {plan.name} needs, as far as the plan alone says it."
    yield "-- No database given (--dsn): its name, who owns the tables, which parents and rows belong"
    yield "-- to other owners are unknown. Complete the lines with <…>, or run the command again with --dsn."
    yield f"CREATE ROLE {role} LOGIN;  -- then set its password: \\password {role}"
    yield f"GRANT pg_read_all_stats TO {role};"
    if plan.locks.end_blockers is not None:
        yield f"GRANT pg_signal_backend TO {role};"
    yield f"-- GRANT CONNECT, CREATE, TEMPORARY ON DATABASE <database> TO {role};"
    creates = ", CREATE" if kinds & {CreatesTable, CreatesIndex} else ""
    yield f"GRANT USAGE{creates} ON SCHEMA {schema} TO {role};"
    yield f"-- GRANT <owner of the tables> TO {role};"
    if CreatesTable in kinds:
        yield f"-- GRANT CREATE ON SCHEMA {schema} TO <owner of the tables>;  -- who shall own the new ones"
    made = {c.effect.table for c in effects.changes if isinstance(c.effect, CreatesTable)}
    parents = {c.effect.ref_table for c in effects.changes if isinstance(c.effect, AddsForeignKey)} - made
    rows = {c.effect.table for c in effects.changes if isinstance(c.effect, MakesRow)} - made
    for table in sorted(parents):
        yield f"-- GRANT REFERENCES, SELECT ON {schema}.{table} TO {role};  -- if another role owns it"
    for table in sorted(rows):
        yield f"-- GRANT INSERT, SELECT ON {schema}.{table} TO {role};  -- if another role owns it"
    yield from _unknown(plan)


def _unknown(plan: Plan) -> Iterator[str]:
    """What no catalog says: SQL of the plan's author."""
    names = dict.fromkeys(spec.operation for stage in plan.stages for spec in stage.steps)
    for name in (n for n in names if OPERATIONS[n].reads_unknown):
        yield f"-- Not known: what the queries of {name} read beside the plan's tables (GRANT SELECT)."
    if any(stage.hold_when.queries for stage in plan.stages):
        yield "-- Not known: what the queries of hold_when read (GRANT SELECT)."
    if plan.locks.standbys:
        yield "-- Standbys have the same role; their pg_hba.conf must let it in."
