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
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Step
from online_migrate.postgres.partitions import partition_names


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
    stats = _Membership.of(role, "pg_read_all_stats")
    fact = f"{role} cannot see other sessions: which of them block a lock, and how old their snapshots are"
    yield _stop("blind", fact + stats.note, stats.grant, is_held=stats.is_held)
    if seen.plan.locks.end_blockers is not None:
        ends = _Membership.of(role, "pg_signal_backend")
        fact = f"{role} may not end other sessions, which locks.end_blockers asks for"
        otherwise = ", or leave end_blockers out"
        yield _stop("signal_right", fact + ends.note, ends.grant, is_held=ends.is_held, otherwise=otherwise)
    if any(stage.hold_when.multixact_members is not None for stage in seen.plan.stages):
        yield _stop(
            code="multixact_right",
            remedy=f"GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO {role}",
            fact=f"{role} may not execute pg_ls_dir, which hold_when.multixact_members needs",
            is_held=role.may_execute("pg_catalog.pg_ls_dir(text)"),
            is_found_by_step=True,
        )
    if any(isinstance(c.effect, FillsColumn) and c.effect.skip_triggers for c in changes):
        yield _stop(
            code="skip_triggers_right",
            remedy=f"GRANT SET ON PARAMETER session_replication_role TO {role}",
            fact=f"{role} may not set session_replication_role, which `triggers: skip` needs",
            is_held=False,
            is_found_by_step=True,
        )


def _on_the_database(seen: Survey, role: RoleRights, kinds: set[type]) -> Iterator[Right]:
    on = f"ON DATABASE {role.database} TO {role}"
    yield _stop(
        code="connect_right",
        remedy=f"GRANT CONNECT {on}",
        fact=f"{role} may not connect to {role.database}",
        is_held=role.may_database("CONNECT"),
    )
    may_create = role.may_database("CREATE")
    if seen.journal is None:
        fact = f"{role} may not create the journal's schema online_migrate in {role.database}"
        yield _stop("journal_right", fact, f"GRANT CREATE {on}", is_held=may_create)
    elif CreatesTable in kinds:
        fact = (
            f"{role} may not create a schema in {role.database}, in which tables that exist are compared"
            " with the plan's and rolled back"
        )
        yield _stop("scratch_right", fact, f"GRANT CREATE {on}", is_held=may_create)
    if AddsColumn in kinds:
        yield _stop(
            code="temporary_right",
            remedy=f"GRANT TEMPORARY {on}",
            fact=f"{role} may not create temporary tables in {role.database}, in which a column's type and"
            " default are tried and rolled back",
            is_held=role.may_database("TEMPORARY"),
        )


def _on_the_schema(seen: Survey, role: RoleRights, kinds: set[type]) -> Iterator[Right]:
    """What a member of the tables' owner has by that need not be granted twice."""
    schema, new_owners = role.quoted(seen.plan.schema), _owners_of_new_tables(seen, role)
    owners = [o.name for o in role.owners(seen.plan.schema, _altered_tables(seen)) if not o.is_superuser]
    if not any(role.may_schema(seen.plan.schema, "USAGE", of=owner) for owner in owners):
        yield _stop(
            code="schema_usage",
            remedy=f"GRANT USAGE ON SCHEMA {schema} TO {role}",
            fact=f"{role} may not use schema {schema}",
            is_held=role.may_schema(seen.plan.schema, "USAGE"),
        )
    has_by_owner = any(role.may_schema(seen.plan.schema, "CREATE", of=owner) for owner in owners)
    if kinds & {CreatesTable, CreatesIndex} and not (has_by_owner or set(new_owners) & set(owners)):
        yield _stop(
            code="schema_right",
            remedy=f"GRANT CREATE ON SCHEMA {schema} TO {role}",
            fact=f"{role} may not create tables and indexes in schema {schema}",
            is_held=role.may_schema(seen.plan.schema, "CREATE"),
        )
    yield from _on_schemas_of_partitions(seen, role, owners, may_create=CreatesIndex in kinds)
    for owner in new_owners:
        name = role.quoted(owner)
        yield _stop(
            code="owner_schema_right",
            remedy=f"GRANT CREATE ON SCHEMA {schema} TO {name}",
            fact=f"{name}, who shall own new tables, may not create in schema {schema}: PostgreSQL refuses"
            " ALTER TABLE … OWNER TO",
            is_held=role.is_superuser or role.may_schema(seen.plan.schema, "CREATE", of=owner),
        )


def _on_schemas_of_partitions(
    seen: Survey, role: RoleRights, owners: list[str], *, may_create: bool
) -> Iterator[Right]:
    """Partitions may be in other schemas than their root."""
    texts = {s.partition for s in seen.steps if s.partition is not None}
    schemas = {partition_names(seen.plan.schema, text)[0] for text in texts} - {seen.plan.schema}
    wanted = {"USAGE": "schema_usage", **({"CREATE": "schema_right"} if may_create else {})}
    for schema in sorted(schemas):
        for right, code in wanted.items():
            if any(role.may_schema(schema, right, of=owner) for owner in owners):
                continue
            does = "use" if right == "USAGE" else "create indexes in"
            yield _stop(
                code=code,
                remedy=f"GRANT {right} ON SCHEMA {role.quoted(schema)} TO {role}",
                fact=f"{role} may not {does} schema {schema}, which has partitions of the plan's tables",
                is_held=role.may_schema(schema, right),
            )


def _of_the_owners(seen: Survey, role: RoleRights) -> Iterator[Right]:
    """Membership in the roles whose tables are altered, with their rights and not only with SET ROLE."""
    for owner in role.owners(seen.plan.schema, _altered_tables(seen)):
        name, member = role.quoted(owner.name), _Membership.of(role, owner.name)
        fact = f"{role} may not alter tables of {name}, e.g. {owner.example}"
        remedy = member.grant
        if owner.is_superuser:
            remedy = (
                f"{name} is a superuser: give the tables to a role of their own (ALTER TABLE … OWNER TO), and"
                f" that role to {role}"
            )
        yield _stop("owner_right", fact + member.note, remedy, is_held=member.is_held)


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
        yield _stop(
            code="table_right",
            remedy=f"GRANT {', '.join(sorted(rights))} ON {role.table_name(table.oid)} TO {role}",
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
    yield _stop(
        code="journal_usage",
        remedy=f"GRANT USAGE ON SCHEMA online_migrate TO {role}",
        fact=f"{role} may not use schema online_migrate, the journal, which {name} owns",
        is_held=may_use,
    )
    yield _stop(
        code="journal_tables",
        remedy=f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA online_migrate TO {role}",
        fact=f"{role} may not read and write the journal, which {name} owns",
        is_held=may_write,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Membership:
    """In a role whose rights are needed: a member without INHERIT has them only after SET ROLE."""

    grant: str
    is_held: bool
    note: str

    @classmethod
    def of(cls, role: RoleRights, group: str) -> _Membership:
        name = role.quoted(group)
        is_held, grant, note = role.has_rights_of(group), f"GRANT {name} TO {role}", ""
        if not is_held and role.is_member_of(group):
            note = f" (it is a member of {name}, but does not inherit its rights)"
            grant = f"ALTER ROLE {role} INHERIT" if role.version < 160000 else f"{grant} WITH INHERIT TRUE"
        return cls(grant=grant, is_held=is_held, note=note)


def _stop(
    code: str, fact: str, remedy: str, *, is_held: bool, otherwise: str = "", is_found_by_step: bool = False
) -> Right:
    return Right(
        code=code,
        fact=fact,
        grant=remedy,
        is_held=is_held,
        otherwise=otherwise,
        is_found_by_step=is_found_by_step,
    )


def _altered_tables(seen: Survey) -> list[str]:
    """Tables whose owner's rights the steps need; models of new tables among them."""
    names = {s.table for s in seen.steps if s.table is not None and OPERATIONS[s.spec.operation].needs_owner}
    return sorted(names | {m for s in seen.steps if (m := _model_of(s)) is not None})


def _owners_of_new_tables(seen: Survey, role: RoleRights) -> list[str]:
    models = {m for s in seen.steps if s.key not in seen.done and (m := _model_of(s)) is not None}
    owners = {t.owner for m in models if (t := seen.catalog.table(m)) is not None}
    return sorted(owners - {role.name} - role.superusers)


def _model_of(step: Step) -> str | None:
    return OPERATIONS[step.spec.operation].takes_owner_of(step.spec.params)
