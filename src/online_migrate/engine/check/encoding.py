"""A database whose encoding is not UTF8: what of the plan it cannot store."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from online_migrate.findings import Finding, Severity
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.encoding import server_encoding


def check_encoding(plan: Plan, connection: Connection) -> Iterator[Finding]:
    """Texts of the plan that the server cannot convert, and a database that converts none."""
    encoding, text = server_encoding(connection), repr((plan.name, plan.schema, plan.table_sets, plan.stages))
    if encoding == "SQL_ASCII":
        yield _unknown(text)
    elif encoding != "UTF8":
        try:
            connection.execute("SELECT %s::text", [text])
        except psycopg.errors.UntranslatableCharacter as error:
            yield Finding(
                severity=Severity.STOP,
                code="encoding_lacks_character",
                fact=f"the database's encoding {encoding} lacks a character of the plan:"
                f" {error.diag.message_primary}",
                remedy=f"write names, values and notes with characters of {encoding}",
            )


def _unknown(text: str) -> Finding:
    return Finding(
        severity=Severity.INFO if text.isascii() else Severity.WARN,
        code="encoding_unknown",
        fact="the database's encoding is SQL_ASCII, so the server converts no text: the plan's names and"
        " values are written as UTF-8, and a stored text that is not UTF-8 cannot be read",
        remedy="if the application writes another encoding, use only ASCII in the plan",
    )
