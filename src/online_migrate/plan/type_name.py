"""Type names that a plan gives: PostgreSQL's own grammar (libpg_query, through postgast) says what is one."""

from __future__ import annotations

from typing import Final

import postgast
from postgast import pg_query_pb2 as ast

_SERIAL: Final = {"smallserial", "serial", "bigserial", "serial2", "serial4", "serial8"}
"""CREATE TABLE makes a sequence, a default and NOT NULL of these words; they are not types (manual, chapter
"Numeric Types")"""
_COMMENTS: Final = (ast.SQL_COMMENT, ast.C_COMMENT)


def read_type_name(text: str) -> str:
    """The text without the blanks around it, if it is the name of one type and nothing more.

    Raises ValueError for a text that the grammar refuses, and for one that brings a constraint, a default, a
    collation, a comment or a second command along.
    """
    type_name = _parse(text)
    if type_name is None or type_name.setof or type_name.pct_type:
        raise ValueError(
            "this is not the name of one type and nothing more, as in integer, timestamp(3) with time zone,"
            ' text[], "PlanTier" or extensions.citext'
        )
    if len(type_name.names) == 1 and type_name.names[0].string.sval in _SERIAL:
        raise ValueError(
            "this is not a type: PostgreSQL makes a sequence, a default and NOT NULL of it; write integer or"
            " bigint"
        )
    return text.strip()


def _parse(text: str) -> ast.TypeName | None:
    """None where the text is no type, or is more than one.

    A second column after it, in a line of its own, shows whether the text ends the statement.
    """
    if "\0" in text:
        return None
    try:
        statements = postgast.parse(f"ALTER TABLE t ADD COLUMN c {text}\n, ADD COLUMN d integer").stmts
        has_comment = any(token.token in _COMMENTS for token in postgast.scan(text).tokens)
    except postgast.PgQueryError:
        return None
    commands = statements[0].stmt.alter_table_stmt.cmds
    if len(statements) != 1 or len(commands) != 2 or has_comment:
        return None
    column = getattr(commands[0].alter_table_cmd, "def").column_def
    given = {field.name for field, _ in column.ListFields()}
    return column.type_name if given <= {"colname", "type_name", "is_local", "location"} else None
