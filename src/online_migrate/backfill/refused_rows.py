"""Find the row for which a batch fails: the batch is split until the row is found, and the run stops with its
key.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from online_migrate.backfill.batch import Writer
from online_migrate.backfill.chunks import Slice
from online_migrate.backfill.rows import describe_rows
from online_migrate.errors import OnlineMigrateError, VerificationFailed
from online_migrate.postgres.sqlstate import ErrorClass, error_class

_NOT_ABOUT_ROWS = ("40", "53", "57", "58", "XX", "OM")
"""classes of SQLSTATE: transaction rollback, resources, operator, system, internal (manual, appendix A); the
journal's"""


def is_about_rows(error: psycopg.Error) -> bool:
    """Whether a single row may be the cause.  A trigger may raise any SQLSTATE, also one of its own."""
    is_of_server = error.sqlstate is not None and error_class(error) is ErrorClass.PROGRAM
    return is_of_server and not str(error.sqlstate).startswith(_NOT_ABOUT_ROWS)


def find_refused_row(writer: Writer, part: Slice, error: psycopg.Error) -> OnlineMigrateError:
    """The refused row of a page; see :func:`find_refused_among`."""
    return find_refused_among(writer, part.condition, f"rows of page {part.first_page}", error)


def find_refused_among(
    writer: Writer, rows: sql.Composable, described: str, error: psycopg.Error
) -> OnlineMigrateError:
    """Try the rows one by one, each rolled back; the error returned names the first that is refused, by its
    key.

    It omits the DETAIL of the server's message, which may contain the row's values.  Raises ``error``
    unchanged if the statement also fails without any row.
    """
    target = writer.target
    if writer.probe(sql.SQL("false")) is not None:
        raise error
    found = writer.connection.execute(
        sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {} AND {} IS NULL").format(
            target.sql_table, rows, target.sql_column
        )
    ).fetchall()
    for (ctid,) in found:
        refusal = writer.probe(
            sql.SQL("ctid OPERATOR(pg_catalog.=) {}::pg_catalog.tid").format(sql.Literal(ctid))
        )
        if refusal is not None:
            row = describe_rows(writer.connection, target.table, [ctid])
            return VerificationFailed(
                f"{target.table.full_name}: {target.column} of the row with {row} cannot be filled:"
                f" {refusal.diag.message_primary or refusal}",
                remedy="fix this row, then run the same command again: it continues at this row",
            )
    return VerificationFailed(
        f"{target.table.full_name}: {target.column} of {described} cannot be filled together:"
        f" {error.diag.message_primary or error}",
        remedy="fix these rows, then run the same command again: it continues at this batch",
    )
