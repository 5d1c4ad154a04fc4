"""Uniques that refuse a second owner's row, and the unique per owner that could replace each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from online_migrate.discovery.uniques import Unique, read_uniques
from online_migrate.postgres.catalog import ConstraintInfo, IndexInfo, TableInfo
from online_migrate.postgres.connection import Connection

_KEYS = """
SELECT ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false) FROM generate_series(1, i.indnkeyatts::int) k
              ORDER BY k), pg_get_expr(i.indpred, i.indrelid)
  FROM pg_index i WHERE i.indexrelid = %s"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UniqueProposal:
    """An old unique, and the parts of the new one besides the owner's column."""

    table: str
    names: tuple[str, ...]
    """of the old ones: those on the same columns are swapped together"""
    columns: tuple[str, ...]
    """of a whole one; empty for one that is partial or over an expression"""
    keys: tuple[str, ...] = ()
    where: str | None = None
    include: tuple[str, ...] = ()
    nulls_not_distinct: bool = False


def propose_uniques(
    connection: Connection,
    tables: Iterable[TableInfo],
    members: Collection[str],
    column: str,
    keys: Collection[ConstraintInfo],
) -> tuple[tuple[UniqueProposal, ...], tuple[str, ...]]:
    """What to swap, and questions about what no step can swap.

    A unique over a foreign key to a table of the set is per owner already, and so is a primary key that the
    database makes: neither is named.
    """
    infos = {t.oid: t for t in tables}
    proposed: dict[tuple[str, frozenset[str] | str], UniqueProposal] = {}
    questions: list[str] = []
    for unique in read_uniques(connection, infos):
        table = infos[unique.root]
        own = {c for k in table.foreign_keys if k.ref_table in members for c in k.columns}
        if unique.has_made_key or (own | {column}) & unique.compared:
            continue
        index = table.index(unique.name) if unique.table == table.name else None
        if reason := _why_not(table, unique, index, keys):
            questions.append(f"{unique}: {reason}")
            continue
        assert index is not None  # else there is a reason
        new = _successor(connection, table, index)
        same = (table.name, frozenset(new.columns) or index.name)
        if (before := proposed.get(same)) is not None:
            new = UniqueProposal(
                table=before.table,
                names=(*before.names, index.name),
                columns=before.columns,
                include=before.include or new.include,
                nulls_not_distinct=before.nulls_not_distinct or new.nulls_not_distinct,
            )
        proposed[same] = new
    return tuple(proposed.values()), tuple(questions)


def _why_not(
    table: TableInfo, unique: Unique, index: IndexInfo | None, keys: Collection[ConstraintInfo]
) -> str:
    """Why no step swaps it; empty where one can."""
    if index is None or table.kind == "p":
        return "it is of a partitioned table, or of one of its partitions; name each partition in steps"
    if unique.kind == "primary key":
        return "a primary key cannot be swapped; if two owners may have the same value, the key must change"
    if index.is_exclusion:
        return "an exclusion constraint; if it should hold per owner, add one with the owner's column"
    if by := [k for k in keys if k.index_oid == index.oid]:
        return f"foreign key {by[0].name} of {by[0].table} references it, so it cannot be swapped"
    if index.is_deferrable:
        return "it is DEFERRABLE, which no new index is; swap it if the application never defers it"
    if any("<" in c for c in index.columns if c):
        return "a step cannot name its columns"
    return ""


def _successor(connection: Connection, table: TableInfo, index: IndexInfo) -> UniqueProposal:
    columns = tuple(c for c in index.columns if c is not None)
    is_whole = len(columns) == len(index.columns) and not index.has_predicate
    keys: list[str] = []
    where: str | None = None
    if not is_whole:
        row = connection.execute(_KEYS, [index.oid]).fetchone()
        assert row is not None  # the index was just read in the same snapshot
        keys, where = row
    return UniqueProposal(
        table=table.name,
        names=(index.name,),
        columns=columns if is_whole else (),
        keys=tuple(keys),
        where=where,
        include=index.included,
        nulls_not_distinct=index.nulls_not_distinct,
    )
