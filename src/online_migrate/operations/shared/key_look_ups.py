"""Which indexes find the rows of a foreign key: without one, each parent that is deleted scans the table."""

from __future__ import annotations

from online_migrate.operations.schema_before import IndexThen, TableThen
from online_migrate.postgres.catalog import IndexInfo

_METHODS = {"btree", "hash", "gist"}
"""index methods that find single rows by ``=``"""


def serving(table: TableThen, columns: tuple[str, ...]) -> frozenset[str]:
    """Names of the table's indexes, as they will be, that find the rows of one parent."""
    now = {} if table.info is None else {i.name: i for i in table.info.indexes}
    return frozenset(
        name
        for name, index in table.indexes.items()
        if (serves(now[name], columns) if name in now else _leads(index, columns))
    )


def serves(index: IndexInfo, columns: tuple[str, ...]) -> bool:
    """Whether the look-up of the rows of one parent can use the index."""
    is_whole = not index.has_predicate or any(
        index.definition.endswith(f"WHERE ({text} IS NOT NULL)") for text in (columns[0], f'"{columns[0]}"')
    )
    return is_whole and index.method in _METHODS and _has_prefix(index.columns, columns)


def _leads(index: IndexThen, columns: tuple[str, ...]) -> bool:
    """Of an index that the plan builds, which is a B-tree."""
    return not index.has_predicate and _has_prefix(index.columns, columns)


def _has_prefix(of_index: tuple[str | None, ...], columns: tuple[str, ...]) -> bool:
    return set(of_index[: len(columns)]) == set(columns)
