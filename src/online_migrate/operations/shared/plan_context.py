"""What the plan's other steps mean for a backfill: what is there by then, and what is not filled yet."""

from __future__ import annotations

from collections.abc import Iterable

from online_migrate.backfill.hazards.filled_column import PlanContext
from online_migrate.backfill.hazards.triggers import skipped_key_hazard
from online_migrate.findings import Finding
from online_migrate.operations.contract.base import (
    Place,
)
from online_migrate.plan.model import Step


def read_plan_context(place: Place) -> PlanContext:
    """Columns that are added and filled above and below."""
    above = _above(place)
    instant = [s for s in above if getattr(s.spec.params, "instant", False)]
    return PlanContext(
        added=_added(place, place.all_steps),
        filled_before=_columns_of("backfill", above) | _added(place, instant).keys(),
        filled_later=_columns_of("backfill", place.all_steps[len(above) + 1 :]),
        made={str(s.table) for s in place.all_steps if s.spec.operation in ("create_tables", "ensure_row")},
    )


def family(place: Place, table: str) -> tuple[str, ...]:
    """The table and what is read and changed with it: its partitions, or those that inherit from it."""
    info = None if place.catalog is None else place.catalog.table(table)
    return (table, *(() if info is None else (name for _, name in info.descendants)))


def leaves_left_out(place: Place, column: str) -> tuple[str, list[str]]:
    """Of a leaf partition: its root, and that root's other leaves in which the plan backfills the column nowhere."""
    filled = [table for table, of in _columns_of("backfill", place.all_steps) if of == column]
    rows = place.known.connection.execute(
        """SELECT r.relname, l.relname FROM pg_partition_root(%(table)s::regclass) root (oid)
             JOIN pg_class r ON r.oid = root.oid CROSS JOIN pg_partition_tree(root.oid) t
             JOIN pg_class l ON l.oid = t.relid JOIN pg_namespace n ON n.oid = l.relnamespace
            WHERE t.isleaf AND l.relkind = 'r' AND NOT (n.nspname = %(schema)s AND l.relname = ANY (%(filled)s)) ORDER BY l.relname""",
        {"table": place.sql_table.as_string(None), "schema": place.schema, "filled": filled},
    ).fetchall()
    return (rows[0][0] if rows else ""), [name for _, name in rows]


def indexes_above(place: Place, column: str) -> dict[str, str]:
    """Indexes on the column that the plan builds above this step: their names by table."""
    return {
        str(s.table): str(getattr(s.spec.params, "name", "")).replace("<table>", str(s.table))
        for s in _above(place)
        if s.spec.operation == "create_index" and column in getattr(s.spec.params, "columns", ())
    }


def keys_above(place: Place, column: str) -> list[Finding]:
    """A foreign key that the plan adds above exists by then, and `triggers: skip` would skip its check."""
    if (place.table, column) not in _columns_of("add_foreign_key", _above(place)):
        return []
    return [skipped_key_hazard(f"the foreign key on {place.table}.{column} that the plan adds above")]


def default_above(place: Place, column: str, *, now: bool) -> bool:
    """Has an INSERT a value for the column when this step is taken, if it has one ``now``?  The plan may set a default and drop it."""
    for step in _above(place):
        params = step.spec.params
        if getattr(params, "column", None) != column or place.table not in family(place, str(step.table)):
            continue
        if step.spec.operation == "add_column" and getattr(params, "new_rows", None) is not None:
            now = True
        elif step.spec.operation == "drop_default":
            now = False
    return now


def makes_uniques_above(place: Place, table: str) -> bool:
    """May a step above build a unique index on the table?"""
    return any(
        s.table == table and s.spec.operation in ("create_index", "swap_unique") for s in _above(place)
    )


def is_behind_a_gate(place: Place) -> bool:
    """Does a person approve this stage, or one above it?  What is found now may be otherwise by then."""
    names = [stage.name for stage in place.plan.stages]
    return any(stage.gate for stage in place.plan.stages[: names.index(place.step.stage) + 1])


def _above(place: Place) -> tuple[Step, ...]:
    """The plan's steps before this one."""
    return place.all_steps[: place.all_steps.index(place.step)] if place.step in place.all_steps else ()


def _added(place: Place, steps: Iterable[Step]) -> dict[tuple[str, str], str]:
    """Columns that steps add, and their types."""
    return {
        (name, str(getattr(s.spec.params, "column", ""))): str(getattr(s.spec.params, "type", ""))
        for s in steps
        if s.spec.operation == "add_column"
        for name in family(place, str(s.table))
    }


def _columns_of(operation: str, steps: Iterable[Step]) -> set[tuple[str, str]]:
    """(table, column) of the steps of one kind."""
    return {
        (str(s.table), str(getattr(s.spec.params, "column", "")))
        for s in steps
        if s.spec.operation == operation
    }
