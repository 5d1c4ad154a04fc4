"""Foreign keys with an action ON DELETE whose rows no index finds: each deleted parent scans the child."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from online_migrate.engine.survey import Survey
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.effects import AddsForeignKey
from online_migrate.operations.schema_before import Schema
from online_migrate.operations.shared.key_look_ups import serves, serving
from online_migrate.postgres.catalog import Catalog, ConstraintInfo, TableInfo

MANUAL = "https://www.postgresql.org/docs/current/ddl-constraints.html#DDL-CONSTRAINTS-FK"
_ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def check_cascades(seen: Survey, keys: Iterable[ConstraintInfo]) -> list[Finding]:
    """A warning for each such key that the plan adds, or that leads into one of its sets."""
    return [*_planned(seen), *_existing(seen, keys)]


def _planned(seen: Survey) -> Iterator[Finding]:
    for change in seen.open_changes:
        effect = change.effect
        if not isinstance(effect, AddsForeignKey) or effect.on_delete not in ("cascade", "set null"):
            continue
        if _is_served(seen, effect.table, (effect.column,)):
            continue
        key = f"{effect.name} of {effect.table}.{effect.column}, which the plan adds,"
        yield _finding(key, effect.on_delete.upper(), effect.ref_table, effect.table, (effect.column,))


def _existing(seen: Survey, keys: Iterable[ConstraintInfo]) -> Iterator[Finding]:
    members = {t for tables in seen.sets.values() for t in tables}
    for key in keys:
        leads_into_a_set = key.ref_schema == seen.plan.schema and key.ref_table in members
        if key.on_delete not in _ACTIONS or key.is_inherited or not leads_into_a_set:
            continue
        if key.schema == seen.plan.schema:
            name, is_served = key.table, _is_served(seen, key.table, key.columns)
        else:
            name = f"{key.schema}.{key.table}"
            table = Catalog(seen.catalog.connection, key.schema).table(key.table)
            is_served = table is None or _serves_now(table, key.columns)
        if not is_served:
            named = f"{key.name} of {name}.{', '.join(key.columns)}"
            yield _finding(named, _ACTIONS[key.on_delete], str(key.ref_table), name, key.columns)


def _is_served(seen: Survey, name: str, columns: tuple[str, ...]) -> bool:
    """By an index that exists when the plan is done; true where the plan creates the table by its DDL, whose
    indexes are not known.
    """
    then = Schema(seen.effects, seen.catalog, len(seen.steps)).table(name)
    if then is None or then.info is None:
        return True
    return bool(serving(then, columns))


def _serves_now(table: TableInfo, columns: tuple[str, ...]) -> bool:
    return any(i.is_valid and serves(i, columns) for i in table.indexes)


def _finding(key: str, action: str, parent: str, table: str, columns: tuple[str, ...]) -> Finding:
    name = table.rpartition(".")[2]
    listed = ", ".join(columns)
    step = f"create_index: {{table: {name}, name: idx_{name}_{'_'.join(columns)}, columns: [{listed}]}}"
    return Finding(
        severity=Severity.WARN,
        code="cascade_without_index",
        fact=f"foreign key {key} is ON DELETE {action} without an index on ({listed}): each row that is"
        f" deleted from {parent} scans the whole of {table}",
        remedy=f"add a step before it: {step}",
        table=name,
        manual=MANUAL,
    )
