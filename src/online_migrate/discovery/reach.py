"""Which tables reach a root by foreign keys, at any distance.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

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


def outside_tables_referencing(
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


def paths_through_other_schemas(
    members: Iterable[str], foreign_keys: Iterable[ConstraintInfo], schema: str, without: Collection[str] = ()
) -> tuple[tuple[str, ...], ...]:
    """Tables outside of a set that reference it, at any distance, by way of another schema than ``schema``.

    Each is a shortest path, from the table to the member of the set that it ends at, nearest tables first.
    No path leads by way of the tables ``without``, which are of ``schema``.
    """
    parents: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for key in foreign_keys:
        if key.ref_schema is not None and key.ref_table is not None and not key.is_inherited:
            parents.setdefault((key.ref_schema, key.ref_table), set()).add((key.schema, key.table))
    nearest = sorted((schema, name) for name in members)
    paths: dict[tuple[str, str], tuple[str, ...]] = {t: (".".join(t),) for t in nearest}
    inside, skipped = set(nearest), {(schema, name) for name in without}
    crossing: set[tuple[str, str]] = set()
    while nearest:
        found: list[tuple[str, str]] = []
        for parent in nearest:
            for child in sorted(parents.get(parent, set()) - skipped):
                if child not in paths:
                    paths[child] = (".".join(child), *paths[parent])
                    found.append(child)
                if child not in inside and (child[0] != schema or parent in crossing):
                    crossing.add(child)
        nearest = found
    return tuple(path for table, path in paths.items() if table in crossing)
