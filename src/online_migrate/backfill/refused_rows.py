"""A batch that fails is split until the row is found that the server will not change; it is named, and the run stops there."""

from __future__ import annotations

import psycopg
from psycopg import sql

from online_migrate.backfill.batch import Writer
from online_migrate.backfill.chunks import Slice
from online_migrate.backfill.rows import describe_rows
from online_migrate.errors import OnlineMigrateError, VerificationFailed
from online_migrate.postgres.sqlstate import Trouble, trouble_of

_NOT_ABOUT_ROWS = ("40", "53", "57", "58", "XX", "OM")
"""classes: transaction rollback, resources, operator, system, internal (manual, appendix A); the journal's own"""


def is_about_rows(error: psycopg.Error) -> bool:
    """Can a row be the cause, so that the others go through?  A trigger may raise any SQLSTATE, one of its own too."""
    is_of_server = error.sqlstate is not None and trouble_of(error) is Trouble.PROGRAM
    return is_of_server and not str(error.sqlstate).startswith(_NOT_ABOUT_ROWS)


def find_refused_row(writer: Writer, part: Slice, error: psycopg.Error) -> OnlineMigrateError:
    """The row of a page that is refused: see :func:`find_refused_among`."""
    return find_refused_among(writer, part.condition, f"rows of page {part.first_page}", error)


def find_refused_among(
    writer: Writer, rows: sql.Composable, described: str, error: psycopg.Error
) -> OnlineMigrateError:
    """Try the rows one by one, each taken back; the answer names the first that is refused, by its key.

    DETAIL of the server's message may hold the row's values and is left out.  Raises ``error`` as it is where the
    statement fails without any row, too.
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
        refusal = writer.probe(sql.SQL("ctid = {}::tid").format(sql.Literal(ctid)))
        if refusal is not None:
            row = describe_rows(writer.connection, target.table, [ctid])
            return VerificationFailed(
                f"{target.table.full_name}: the row {row} cannot be given {target.column}:"
                f" {refusal.diag.message_primary or refusal}",
                remedy="mend this row, then run the same command again: it goes on at this row",
            )
    return VerificationFailed(
        f"{target.table.full_name}: {described} cannot be given {target.column} together:"
        f" {error.diag.message_primary or error}",
        remedy="mend them, then run the same command again: it goes on where it stands",
    )
