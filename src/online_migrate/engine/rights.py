"""The rights that a plan needs in a database, for `check` and for `grants`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from online_migrate.engine.role_rights import RoleRights
from online_migrate.engine.survey import Survey
from online_migrate.operations.contract.effects import (
    AddsColumn,
    AddsForeignKey,
    Change,
    CreatesIndex,
    CreatesTable,
    FillsColumn,
    MakesRow,
    ReadsColumns,
)
from online_migrate.operations.create_tables import LoadedCreateTablesParams
from online_migrate.plan.model import Step

_ROWS_ONLY = ("ensure_row", "verify_owner")
"""operations that read or write rows, and alter nothing"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One right, the statement that gives it, and what the role may not do without it."""

    code: str
    grant: str
    fact: str
    is_held: bool
    otherwise: str = ""
    """another remedy, after the GRANT"""
    is_found_by_step: bool = False
    """the step's own preflight reports it, with more of the circumstances"""


def needed_rights(seen: Survey, role: RoleRights, *, changes: tuple[Change, ...]) -> Iterator[Right]:
    """Each right that these changes need, held or not; the role need not exist."""
    kinds = {type(c.effect) for c in changes}
    yield from _of_the_server(seen, role, changes)
    yield from _on_the_database(seen, role, kinds)
    yield from _on_the_schema(seen, role, kinds)
    yield from _of_the_owners(seen, role)
    yield from _on_tables(seen, role, changes)
    yield from _on_the_journal(seen, role)


def _of_the_server(seen: Survey, role: RoleRights, changes: tuple[Change, ...]) -> Iterator[Right]:
    fact = f"{role} cannot see other sessions: which of them block a lock, and how old their snapshots are"
    yield _membership(role, "pg_read_all_stats", "blind", fact)
    if seen.plan.locks.end_blockers is not None:
        fact = f"{role} may not end other sessions, which locks.end_blockers asks for"
        yield _membership(role, "pg_signal_backend", "signal_right", fact, ", or leave end_blockers out")
    if any(stage.hold_when.multixact_members is not None for stage in seen.plan.stages):
        yield Right(
            code="multixact_right",
            grant=f"GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO {role}",
            fact=f"{role} may not execute pg_ls_dir, which hold_when.multixact_members needs",
            is_held=role.may_execute("pg_catalog.pg_ls_dir(text)"),
            is_found_by_step=True,
        )
    if any(isinstance(c.effect, FillsColumn) and c.effect.skip_triggers for c in changes):
        yield Right(
            code="skip_triggers_right",
            grant=f"GRANT SET ON PARAMETER session_replication_role TO {role}",
            fact=f"{role} may not set session_replication_role, which skip_triggers needs",
            is_held=False,
            is_found_by_step=True,
        )


def _on_the_database(seen: Survey, role: RoleRights, kinds: set[type]) -> Iterator[Right]:
    on = f"ON DATABASE {role.database} TO {role}"
    yield Right(
        code="connect_right",
        grant=f"GRANT CONNECT {on}",
        fact=f"{role} may not connect to {role.database}",
        is_held=role.may_database("CONNECT"),
    )
    code, fact = (
        "journal_right",
        f"{role} may not create the journal's schema online_migrate in {role.database}",
    )
    if seen.journal is not None:
        code = "scratch_right"
        fact = (
            f"{role} may not create a schema in {role.database}, in which tables that exist are compared"
            " with the plan's and rolled back"
        )
    if seen.journal is None or CreatesTable in kinds:
        yield Right(code=code, grant=f"GRANT CREATE {on}", fact=fact, is_held=role.may_database("CREATE"))
    if AddsColumn in kinds:
        yield Right(
            code="temporary_right",
            grant=f"GRANT TEMPORARY {on}",
            fact=f"{role} may not create temporary tables in {role.database}, in which a column's type and"
            " default are tried and rolled back",
            is_held=role.may_database("TEMPORARY"),
        )


def _on_the_schema(seen: Survey, role: RoleRights, kinds: set[type]) -> Iterator[Right]:
    """What a member of the tables' owner has by that need not be granted twice."""
    schema, new_owners = role.quoted(seen.plan.schema), _owners_of_new_tables(seen, role)
    owners = [o.name for o in role.owners(seen.plan.schema, _altered_tables(seen)) if not o.is_superuser]
    if not any(role.may_schema(seen.plan.schema, "USAGE", of=owner) for owner in owners):
        yield Right(
            code="schema_usage",
            grant=f"GRANT USAGE ON SCHEMA {schema} TO {role}",
            fact=f"{role} may not use schema {schema}",
            is_held=role.may_schema(seen.plan.schema, "USAGE"),
        )
    has_by_owner = any(role.may_schema(seen.plan.schema, "CREATE", of=owner) for owner in owners)
    if kinds & {CreatesTable, CreatesIndex} and not (has_by_owner or set(new_owners) & set(owners)):
        yield Right(
            code="schema_right",
            grant=f"GRANT CREATE ON SCHEMA {schema} TO {role}",
            fact=f"{role} may not create tables and indexes in schema {schema}",
            is_held=role.may_schema(seen.plan.schema, "CREATE"),
        )
    for owner in new_owners:
        name = role.quoted(owner)
        yield Right(
            code="owner_schema_right",
            grant=f"GRANT CREATE ON SCHEMA {schema} TO {name}",
            fact=f"{name}, who shall own new tables, may not create in schema {schema}: PostgreSQL refuses"
            " ALTER TABLE … OWNER TO",
            is_held=role.is_superuser or role.may_schema(seen.plan.schema, "CREATE", of=owner),
        )


def _of_the_owners(seen: Survey, role: RoleRights) -> Iterator[Right]:
    """Membership in the roles whose tables are altered, with their rights and not only with SET ROLE."""
    for owner in role.owners(seen.plan.schema, _altered_tables(seen)):
        name = role.quoted(owner.name)
        fact = f"{role} may not alter tables of {name}, e.g. {owner.example}"
        if owner.is_superuser:
            yield Right(
                code="owner_right",
                grant=f"{name} is a superuser: give the tables to a role of their own (ALTER TABLE … OWNER"
                f" TO), and that role to {role}",
                fact=fact,
                is_held=role.has_rights_of(owner.name),
            )
        else:
            yield _membership(role, owner.name, "owner_right", fact)


def _on_tables(seen: Survey, role: RoleRights, changes: tuple[Change, ...]) -> Iterator[Right]:
    """Rights on tables that the plan does not alter: parents, and tables whose rows are read or made."""
    altered = {o.name for o in role.owners(seen.plan.schema, _altered_tables(seen))}
    wanted: dict[str, set[str]] = {}
    for change in changes:
        for name, more in _reads_and_writes(change):
            wanted.setdefault(name, set()).update(more)
    for name, rights in wanted.items():
        table = seen.catalog.table(name)
        if table is None or table.owner in altered:
            continue
        verbs = {"SELECT": "read", "INSERT": "insert into", "REFERENCES": "reference"}
        yield Right(
            code="table_right",
            grant=f"GRANT {', '.join(sorted(rights))} ON {role.table_name(table.oid)} TO {role}",
            fact=f"role {role} may not {' and '.join(verbs[r] for r in sorted(rights))} {table.name}",
            is_held=all(role.may_table(table.oid, r) for r in rights),
            is_found_by_step="INSERT" not in rights,
        )


def _reads_and_writes(change: Change) -> Iterator[tuple[str, tuple[str, ...]]]:
    effect = change.effect
    if isinstance(effect, AddsForeignKey):
        yield effect.ref_table, ("REFERENCES", "SELECT")
    elif isinstance(effect, CreatesTable):
        yield from ((name, ("REFERENCES", "SELECT")) for name in effect.references)
    elif isinstance(effect, MakesRow):
        yield effect.table, ("SELECT", "INSERT")
    elif isinstance(effect, ReadsColumns):
        yield effect.table, ("SELECT",)


def _on_the_journal(seen: Survey, role: RoleRights) -> Iterator[Right]:
    """On a journal that another role owns."""
    if seen.journal is None:
        return
    owner, may_use, may_write = role.journal()
    name = role.quoted(owner)
    yield Right(
        code="journal_usage",
        grant=f"GRANT USAGE ON SCHEMA online_migrate TO {role}",
        fact=f"{role} may not use schema online_migrate, the journal, which {name} owns",
        is_held=may_use,
    )
    yield Right(
        code="journal_tables",
        grant=f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA online_migrate TO {role}",
        fact=f"{role} may not read and write the journal, which {name} owns",
        is_held=may_write,
    )


def _membership(role: RoleRights, group: str, code: str, fact: str, otherwise: str = "") -> Right:
    """A member without INHERIT has the group's rights only after SET ROLE, which we do not use."""
    name = role.quoted(group)
    is_held, grant = role.has_rights_of(group), f"GRANT {name} TO {role}"
    if not is_held and role.is_member_of(group):
        fact += f": it is a member of {name}, but does not inherit its rights"
        grant = f"ALTER ROLE {role} INHERIT" if role.version < 160000 else f"{grant} WITH INHERIT TRUE"
    return Right(code=code, grant=grant, fact=fact, is_held=is_held, otherwise=otherwise)


def _altered_tables(seen: Survey) -> list[str]:
    """Tables whose owner's rights the steps need; models of new tables among them."""
    names = {s.table for s in seen.steps if s.table is not None and s.spec.operation not in _ROWS_ONLY}
    return sorted(names | {m for s in seen.steps if (m := _model_of(s)) is not None})


def _owners_of_new_tables(seen: Survey, role: RoleRights) -> list[str]:
    models = {m for s in seen.steps if s.key not in seen.done and (m := _model_of(s)) is not None}
    owners = {t.owner for m in models if (t := seen.catalog.table(m)) is not None}
    return sorted(owners - {role.name} - role.superusers)


def _model_of(step: Step) -> str | None:
    params = step.spec.params
    return params.model if isinstance(params, LoadedCreateTablesParams) else None
