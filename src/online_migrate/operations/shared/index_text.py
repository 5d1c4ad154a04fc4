"""The SQL of an index that a plan's author wrote: keys and predicate, read by PostgreSQL's grammar."""

from __future__ import annotations

import postgast
import psycopg
from postgast import pg_query_pb2 as ast
from psycopg import sql

from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.rehearsal import temporary_copy
from online_migrate.postgres.search_path import SearchPath, local_path

SCRATCH = "online_migrate_scratch_index"


def column_of_key(text: str) -> str | None:
    """The column of a key such as ``code DESC``; None for an expression.  Raises ValueError where the text is
    not one key.
    """
    return _element(text).name or None


def traits_of_key(text: str) -> frozenset[str]:
    """What is special about the key, as :func:`online_migrate.discovery.uniques.read_traits` says it."""
    element = _element(text)
    found = set()
    if element.opclass:
        found.add(f"operator class {element.opclass[-1].string.sval} of {element.name}")
    if element.collation:
        name = sql.Identifier(element.collation[-1].string.sval).as_string(None)
        found.add(f"COLLATE {name} of {element.name}")
    is_descending = element.ordering == ast.SORTBY_DESC
    nulls_first = element.nulls_ordering == ast.SORTBY_NULLS_FIRST or (
        is_descending and element.nulls_ordering != ast.SORTBY_NULLS_LAST
    )
    if is_descending:
        found.add(f"order DESC{'' if nulls_first else ' NULLS LAST'} of {element.name}")
    elif nulls_first:
        found.add(f"order NULLS FIRST of {element.name}")
    return frozenset(found)


def _element(text: str) -> ast.IndexElem:
    index = _parse(f"CREATE INDEX ON t ({text})", text)
    if len(index.index_params) != 1 or index.index_including_params or index.HasField("where_clause"):
        raise ValueError(f"{text!r} is not one key of an index, such as `lower(code)` or `code DESC`")
    return index.index_params[0].index_elem


def ensure_predicate(text: str) -> str:
    """The text, if it is one condition; raises ValueError."""
    index = _parse(f"CREATE INDEX ON t (a) WHERE ({text})", text)
    if len(index.index_params) != 1 or not index.HasField("where_clause"):
        raise ValueError(f"{text!r} is not a condition")
    return text


def ensure_expression(text: str) -> str:
    """The text, if it is one expression; raises ValueError."""
    if len(_parse(f"CREATE INDEX ON t (({text}))", text).index_params) != 1:
        raise ValueError(f"{text!r} is not one expression")
    return text


def _parse(statement: str, text: str) -> ast.IndexStmt:
    try:
        parsed = postgast.parse(statement)
    except postgast.PgQueryError as error:
        raise ValueError(f"PostgreSQL cannot parse {text!r}: {error.message}") from error
    if len(parsed.stmts) != 1:
        raise ValueError(f"{text!r} is more than one statement")
    return parsed.stmts[0].stmt.index_stmt


def definition_on_copy(
    connection: Connection, table: TableInfo, what: sql.Composable, *, is_unique: bool
) -> str | None:
    """How PostgreSQL spells the index ``what`` (USING … and the rest); None where it refuses it.

    Built on an empty temporary copy of the table, and rolled back.
    """
    try:
        with temporary_copy(connection, table, {}) as copy:
            unique = sql.SQL("UNIQUE " if is_unique else "")
            create = sql.SQL("CREATE {}INDEX {} ON {} {}").format(unique, sql.Identifier(SCRATCH), copy, what)
            with local_path(connection, SearchPath.PLAN):
                connection.execute(create)
            row = connection.execute(
                "SELECT pg_get_indexdef(to_regclass(%s))", [f"pg_temp.{SCRATCH}"]
            ).fetchone()
            return None if row is None else str(row[0])
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError):
        return None
