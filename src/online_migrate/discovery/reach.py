"""Which tables reach a root by foreign keys, at any distance.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from online_migrate.postgres.catalog import ConstraintInfo


def tables_referencing(root: str, foreign_keys: Iterable[ConstraintInfo], schema: str) -> tuple[str, ...]:
    """Every table of ``schema`` from which foreign keys lead to ``root``, nearest first, then by name;
    without ``root``.
    """
    parents: dict[str, set[str]] = {}
    for key in foreign_keys:
        if key.schema == schema and key.ref_schema == schema and key.ref_table is not None:
            parents.setdefault(key.ref_table, set()).add(key.table)
    found: dict[str, None] = {}
    nearest = [root]
    while nearest:
        children = sorted({c for p in nearest for c in parents.get(p, ()) if c != root and c not in found})
        found.update(dict.fromkeys(children))
        nearest = children
    return tuple(found)


def tables_hanging_on(
    members: Iterable[str], foreign_keys: Iterable[ConstraintInfo], schema: str
) -> dict[str, tuple[str, ...]]:
    """Tables outside of a set with a foreign key into it: a question to the
    operator.  Table → the parents.
    """
    inside = set(members)
    found: dict[str, set[str]] = {}
    for key in foreign_keys:
        if key.schema == schema and key.ref_table in inside and key.table not in inside:
            found.setdefault(key.table, set()).add(str(key.ref_table))
    return {table: tuple(sorted(parents)) for table, parents in sorted(found.items())}
