"""By which foreign key a table's rows find their owner: the best path from each table to a root.  Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from online_migrate.postgres.catalog import ConstraintInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerPath:
    """From a table to a root, one foreign key after the other."""

    keys: tuple[ConstraintInfo, ...]
    """the first is the table's own; none for a root"""
    nullable: int
    """how many of them may be NULL"""
    composite: int
    """how many of them have several columns"""
    others: tuple[ConstraintInfo, ...] = ()
    """further foreign keys of the table that lead to a root as well"""

    @property
    def first(self) -> ConstraintInfo | None:
        return self.keys[0] if self.keys else None


def owner_paths(
    roots: Iterable[str],
    keys: Collection[ConstraintInfo],
    may_be_null: Callable[[ConstraintInfo], bool],
    top: Mapping[str, str],
) -> dict[str, OwnerPath]:
    """The best path of every table that reaches a root, parents before their children.

    Better is: fewer keys of several columns, then fewer that may be NULL, then fewer keys, then the
    constraints' names.  ``top`` gives the partitioned table of a partition, to which keys of others may lead.
    """
    children: dict[str, list[ConstraintInfo]] = {}
    for key in keys:
        parent = top.get(str(key.ref_table), str(key.ref_table))
        if parent != key.table:
            children.setdefault(parent, []).append(key)
    found: dict[str, OwnerPath] = {}
    given = list(dict.fromkeys(roots))
    queue: list[tuple[int, int, int, int, tuple[str, ...], str]] = [
        (0, 0, 0, number, (), root) for number, root in enumerate(given)
    ]
    paths: dict[tuple[str, ...], tuple[ConstraintInfo, ...]] = {(): ()}
    while queue:
        composite, nullable, length, number, names, table = heapq.heappop(queue)
        if table in found:
            continue
        taken = () if table in given else paths[(table, *names)]
        found[table] = OwnerPath(keys=taken, nullable=nullable, composite=composite)
        for key in children.get(table, ()):
            if key.table in found or key.table in given:
                continue
            path = (key.name, *names)
            paths[(key.table, *path)] = (key, *taken)
            cost = (composite + (len(key.columns) > 1), nullable + may_be_null(key), length + 1)
            heapq.heappush(queue, (*cost, number, path, key.table))
    return {table: _with_others(path, table, keys, found, top) for table, path in found.items()}


def _with_others(
    path: OwnerPath,
    table: str,
    keys: Collection[ConstraintInfo],
    found: Collection[str],
    top: Mapping[str, str],
) -> OwnerPath:
    """Only keys to another row than the first key's: the same key twice is no question."""
    first = path.first
    if first is None:
        return path
    others = {
        (key.columns, key.ref_table): key
        for key in sorted(keys, key=lambda k: k.name)
        if key.table == table
        and top.get(str(key.ref_table), str(key.ref_table)) in found
        and key.ref_table != table
        and (key.columns, key.ref_table) != (first.columns, first.ref_table)
    }
    return OwnerPath(
        keys=path.keys, nullable=path.nullable, composite=path.composite, others=tuple(others.values())
    )
