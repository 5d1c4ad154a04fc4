"""The expression of a check that a plan's author wrote, read by PostgreSQL's grammar and by the server."""

from __future__ import annotations

from collections.abc import Mapping

import postgast
import psycopg
from postgast import pg_query_pb2 as ast
from psycopg import sql

from online_migrate.operations.shared.index_text import ensure_predicate
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.rehearsal import TrialFailed, temporary_copy
from online_migrate.postgres.search_path import SearchPath, local_path
from online_migrate.postgres.sqlstate import ErrorClass, error_class

SCRATCH = "online_migrate_scratch_check"


def ensure_check(text: str) -> str:
    """The text, if it is one condition that no comment cuts short; raises ValueError."""
    ensure_predicate(f"{text}\n")
    return ensure_predicate(text)


def columns_of(text: str, table: str) -> tuple[str, ...]:
    """The columns of ``table`` that the condition names, in order; a whole row is none."""
    tree = postgast.parse(f"SELECT {text}")
    last = [node.fields[-1] for node in postgast.find_nodes(tree, ast.ColumnRef)]
    names = [field.string.sval for field in last if field.HasField("string")]
    return tuple(dict.fromkeys(name for name in names if name != table))


def check_on_copy(connection: Connection, table: TableInfo, added: Mapping[str, str], check: str) -> str:
    """How PostgreSQL spells the check: ``CHECK ((amount > 0))``.

    Made on an empty temporary copy of the table with the columns ``added``, and rolled back.  Raises
    :class:`TrialFailed` where the server refuses it.
    """
    row: tuple[str] | None = None
    try:
        with temporary_copy(connection, table, added) as copy:
            add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})").format(
                copy, sql.Identifier(SCRATCH), sql.SQL(check)
            )
            with local_path(connection, SearchPath.PLAN):
                connection.execute(add)
            row = connection.execute(
                "SELECT pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint"
                " WHERE conname = %s AND conrelid = pg_catalog.to_regclass(%s)",
                [SCRATCH, copy.as_string(None)],
            ).fetchone()
    except psycopg.Error as error:
        if error_class(error) is not ErrorClass.PROGRAM:
            raise
        raise TrialFailed(error.diag.message_primary or str(error)) from error
    assert row is not None  # it was just made
    return row[0]
