"""What owners depend on outside of a table set: other schemas, polymorphic pairs, grants by column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from online_migrate.discovery.reach import paths_through_other_schemas
from online_migrate.engine.survey import Survey
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.effects import AddsColumn, CreatesTable, FillsColumn
from online_migrate.postgres.catalog import ConstraintInfo, TableInfo

MANUAL = "https://www.postgresql.org/docs/current/sql-grant.html"
_DJANGO = ("content_type_id", "object_id")
"""the columns of a GenericForeignKey; source: Django documentation, chapter contenttypes"""
_COLUMN_GRANTS = """
SELECT c.relname, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
       array_agg(DISTINCT g.privilege_type ORDER BY g.privilege_type),
       quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 CROSS JOIN aclexplode(a.attacl) g
 WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
   AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE')
   AND CASE WHEN g.grantee = 0
            THEN NOT EXISTS (SELECT FROM aclexplode(c.relacl) t
                              WHERE t.grantee = 0 AND t.privilege_type = g.privilege_type)
            ELSE NOT has_table_privilege(g.grantee, c.oid, g.privilege_type) END
 GROUP BY c.relname, n.nspname, g.grantee ORDER BY 1, 2"""
"""Rights that a role has on columns of a table and not on the whole table."""


def check_owners(seen: Survey, keys: Iterable[ConstraintInfo]) -> list[Finding]:
    """Findings about what references the sets by other ways than foreign keys of the plan's schema."""
    return [*_other_schemas(seen, tuple(keys)), *_polymorphic_pairs(seen), *_column_grants(seen)]


def _other_schemas(seen: Survey, keys: tuple[ConstraintInfo, ...]) -> Iterator[Finding]:
    made = {c.effect.table for c in seen.effects.changes if isinstance(c.effect, CreatesTable)}
    for name, table_set in seen.plan.table_sets.items():
        members = seen.sets[name]
        without = made.union(table_set.exclude) - set(members)
        paths = paths_through_other_schemas(members, keys, seen.plan.schema, without)
        if paths:
            reported = "; ".join(" -> ".join(path) for path in paths)
            yield Finding(
                severity=Severity.ASK,
                code="other_schemas",
                fact=f"set {name}: tables of other schemas, or by way of these, reference it: {reported}",
                remedy="a plan changes one schema: if these rows need an owner too, write a plan for that"
                " schema (`schema:`), or move the tables into this one",
            )


def _polymorphic_pairs(seen: Survey) -> Iterator[Finding]:
    """Asked of tables in which the plan fills a column: their rows' parents are known by no foreign key."""
    filled = {c.effect.table for c in seen.open_changes if isinstance(c.effect, FillsColumn)}
    names = {t for tables in seen.sets.values() for t in tables}
    members = [t for t in map(seen.catalog.table, sorted(names)) if t is not None]
    keys = {_wide(t.columns[c].type) for t in members for c in _primary_key(t)}
    for table in (t for t in members if t.name in filled):
        for type_, id_ in _pairs(table, keys):
            yield Finding(
                severity=Severity.ASK,
                code="polymorphic",
                fact=f"{table.name} references other tables by ({type_}, {id_}) and no foreign key: whether a"
                " row has the owner of the row that it names is not verified",
                remedy="derive the value from the named row (`value: {sql: ...}`), and prove it by a"
                " verify_sql step; if the pair names no rows, nothing is needed",
                table=table.name,
            )


def _primary_key(table: TableInfo) -> tuple[str, ...]:
    """Its column; empty where it has several, or none."""
    key = next((c.columns for c in table.constraints if c.kind == "p"), ())
    return key if len(key) == 1 else ()


def _wide(type_: str) -> str:
    """The same word for types whose values name each other."""
    if type_ in ("smallint", "integer", "bigint"):
        return "integer"
    return "text" if type_.startswith(("character", "text")) else type_


def _pairs(table: TableInfo, keys: set[str]) -> Iterator[tuple[str, str]]:
    """(type, id): ``x_type`` or ``x_type_id`` with ``x_id`` of a primary key's type; Django's names,
    also with a prefix.
    """
    bound = {c for key in table.foreign_keys for c in key.columns}
    for name in table.columns:
        if name.endswith(_DJANGO[0]):
            id_ = name.removesuffix(_DJANGO[0]) + _DJANGO[1]
        elif name.endswith(("_type", "_type_id")):
            id_ = name.removesuffix("_id").removesuffix("_type") + "_id"
        else:
            continue
        if id_ not in table.columns or id_ in bound:
            continue
        if id_.endswith(_DJANGO[1]) or _wide(table.columns[id_].type) in keys:
            yield name, id_


def _column_grants(seen: Survey) -> Iterator[Finding]:
    added: dict[str, list[str]] = {}
    for change in seen.open_changes:
        if isinstance(change.effect, AddsColumn):
            added.setdefault(change.effect.table, []).append(change.effect.column)
    if not added:
        return
    parameters = {"schema": seen.plan.schema, "tables": sorted(added)}
    rows = seen.catalog.connection.execute(_COLUMN_GRANTS, parameters).fetchall()
    for name, role, privileges, full_name in rows:
        table = seen.catalog.table(name)
        columns = ", ".join(c for c in added[name] if table is None or c not in table.columns)
        if not columns:
            continue
        rights = ", ".join(f"{privilege} ({columns})" for privilege in privileges)
        yield Finding(
            severity=Severity.WARN,
            code="column_grants",
            fact=f"role {role} has {', '.join(privileges)} on single columns of {name}, so not on the new"
            f" column {columns}: statements that name it, and `*`, are refused (42501)",
            remedy=f"after the column is added: GRANT {rights} ON {full_name} TO {role}",
            table=name,
            manual=MANUAL,
        )
