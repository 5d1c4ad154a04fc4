"""SQL files that a plan names: their statements with lines, what each creates, and queries with expected
answers.

A thin adapter: PostgreSQL's own parser (libpg_query, through postgast) says where a statement ends and what
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Final

import postgast
from postgast import find_nodes
from postgast import pg_query_pb2 as ast

from online_migrate.errors import PlanError
from online_migrate.printable import printable

NO_ROWS: Final = "(0 rows)"
"""the expected answer of a query that returns no rows"""
HOW: Final = (
    f"write each expected row directly above its query: `-- expect: value | value`, or `-- expect: {NO_ROWS}`"
)

_SERIAL: Final = {"smallserial", "serial", "bigserial", "serial2", "serial4", "serial8"}
"""not types, so the parser does not rewrite these names"""


class SqlKind(Enum):
    """What a statement creates, as far as a plan needs to know."""

    CREATE_TABLE = "create table"
    CREATE_INDEX = "create index"
    QUERY = "query"
    """reads: SELECT, VALUES, TABLE, SHOW"""
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlStatement:
    """One statement of a file.  Names are as PostgreSQL folds them; ``schema`` is None where the text names
    none.
    """

    text: str
    """without the semicolon"""
    line: int
    kind: SqlKind
    schema: str | None = None
    table: str | None = None
    """the created table, or the table of the index"""
    index: str | None = None
    """the index's name, if the text gives one"""
    is_concurrent: bool = False
    references: tuple[str, ...] = ()
    """the tables that a new table references, each once, without itself; ``schema.table`` if written so"""
    made_from: tuple[str, ...] = ()
    """the tables that a new table takes columns from: LIKE, INHERITS, PARTITION OF"""
    descends_from: tuple[str, ...] = ()
    """those of them that it is an heir or a partition of"""
    is_partition: bool = False
    is_temporary: bool = False
    columns: tuple[str, ...] = ()
    """of a new table"""
    has_all_columns: bool = True
    """False where a new table takes columns from another one: LIKE, INHERITS, PARTITION OF, OF"""
    index_columns: tuple[str | None, ...] = ()
    """key columns of an index, in order; None for an expression"""
    is_unique: bool = False
    has_predicate: bool = False
    serial_columns: tuple[str, ...] = ()
    """columns of a new table that have their own sequence"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A query and the answer that it must give, as texts; None is a null."""

    title: str
    sql: str
    expected: tuple[tuple[str | None, ...], ...]
    line: int


def read_sql(folder: Path, name: str) -> tuple[str, Path]:
    """The text of a file that a plan names, and its path; raises ValueError."""
    path = folder / name
    try:
        return path.read_bytes().decode("utf-8-sig"), path  # psql, too, skips a byte order mark
    except OSError as error:
        near = sorted(p.name for p in path.parent.glob("*.sql")) if path.parent.is_dir() else []
        close = get_close_matches(path.name, near, n=1)
        meant = f"; did you mean '{close[0]}'?" if close else "; the path is relative to the plan's folder"
        raise ValueError(f"the file {name} cannot be read: {error.strerror}{meant}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the file {name} is not UTF-8 text; save it as UTF-8") from error


@lru_cache(maxsize=32)
def split_sql(text: str, *, path: Path) -> tuple[SqlStatement, ...]:
    """The statements of a text; raises :class:`PlanError` with the line that PostgreSQL's parser refused."""
    return tuple(_classify(raw, statement, line) for raw, statement, line, _ in _parse(text, path))


def load_checks(text: str, *, path: Path) -> tuple[Check, ...]:
    """Queries with their answers.  The comment right above a query is its title and its answer::

        -- Every new table exists
        -- expect: bots | 7
        -- expect: bot_plans | NULL
        SELECT …;

    One ``expect`` a row, in order; ``|`` between columns; values as psql prints them (``t``, ``f``), NULL for
    a null, ``(0 rows)`` for an answer without rows.  Raises :class:`PlanError` for a query without an answer,
    for a statement that is not a query, and for a text without queries.
    """
    checks = [_check(raw, sql, line, before, path) for raw, sql, line, before in _parse(text, path)]
    if not checks:
        raise PlanError("the file contains no query", where=str(path), remedy=HOW)
    return tuple(checks)


def _check(node: ast.Node, sql: str, line: int, before: str, path: Path) -> Check:
    where = f"{path}:{line}"
    if _classify(node, sql, line).kind is not SqlKind.QUERY:
        remedy = "a file of checks only reads: make a change of the database its own step"
        raise PlanError("this is not a query", where=where, remedy=remedy)
    words, answers = _comment_above(before)
    if not answers:
        raise PlanError("this query has no expected answer", where=where, remedy=HOW)
    expected = () if answers == [NO_ROWS] else tuple(_row(answer) for answer in answers)
    if len({len(row) for row in expected}) > 1:
        raise PlanError("the expected rows differ in their number of columns", where=where, remedy=HOW)
    return Check(title=" ".join(words) or f"query of line {line}", sql=sql, expected=expected, line=line)


def _parse(text: str, path: Path) -> Iterator[tuple[ast.Node, str, int, str]]:
    """Each statement: its tree, its text, its line, and the text between it and the one before."""
    if "\0" in text:
        where = f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}"
        raise PlanError("the SQL contains a zero byte", where=where, remedy="save it as UTF-8 text")
    try:
        parsed = postgast.parse(text)
    except postgast.PgQueryError as error:
        before = text[: max(error.cursorpos - 1, 0)]
        where = f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        message = printable(f"PostgreSQL cannot parse this: {error.message}")
        raise PlanError(message, where=where, remedy="correct the SQL file") from error
    content = text.encode()  # libpg_query counts bytes
    end = 0
    for statement in parsed.stmts:
        start = statement.stmt_location
        stop = start + statement.stmt_len if statement.stmt_len else len(content)
        before = content[end:start].decode()
        body = content[start:stop].decode()
        blank = len(body) - len(body.lstrip())
        line = content.count(b"\n", 0, start) + body.count("\n", 0, blank) + 1
        yield statement.stmt, body.strip(), line, before
        end = stop


def _classify(node: ast.Node, text: str, line: int) -> SqlStatement:
    which = node.WhichOneof("node")
    if which == "create_stmt":
        relation = node.create_stmt.relation
        return SqlStatement(
            text=text,
            line=line,
            kind=SqlKind.CREATE_TABLE,
            schema=relation.schemaname or None,
            table=relation.relname,
            references=_references(node.create_stmt),
            made_from=(*_descends_from(node.create_stmt), *_likes(node.create_stmt)),
            descends_from=_descends_from(node.create_stmt),
            is_partition=node.create_stmt.HasField("partbound"),
            is_temporary=relation.relpersistence == "t",
            columns=tuple(c.colname for c in find_nodes(node.create_stmt, ast.ColumnDef)),
            has_all_columns=not _takes_columns(node.create_stmt),
            serial_columns=_serial_columns(node.create_stmt),
        )
    if which == "index_stmt":
        index = node.index_stmt
        return SqlStatement(
            text=text,
            line=line,
            kind=SqlKind.CREATE_INDEX,
            schema=index.relation.schemaname or None,
            table=index.relation.relname,
            index=index.idxname or None,
            is_concurrent=index.concurrent,
            index_columns=tuple(p.index_elem.name or None for p in index.index_params),
            is_unique=index.unique,
            has_predicate=index.HasField("where_clause"),
        )
    kind = SqlKind.QUERY if which in {"select_stmt", "variable_show_stmt"} else SqlKind.OTHER
    return SqlStatement(text=text, line=line, kind=kind)


def _references(statement: ast.CreateStmt) -> tuple[str, ...]:
    own = _name(statement.relation)
    targets = [
        _name(constraint.pktable)
        for constraint in find_nodes(statement, ast.Constraint)
        if constraint.contype == ast.CONSTR_FOREIGN
    ]
    return tuple(dict.fromkeys(t for t in targets if t != own))


def _descends_from(statement: ast.CreateStmt) -> tuple[str, ...]:
    return tuple(_name(node.range_var) for node in statement.inh_relations)


def _likes(statement: ast.CreateStmt) -> tuple[str, ...]:
    return tuple(_name(clause.relation) for clause in find_nodes(statement, ast.TableLikeClause))


def _takes_columns(statement: ast.CreateStmt) -> bool:
    """Some of its columns are another table's."""
    is_like = any(e.WhichOneof("node") == "table_like_clause" for e in statement.table_elts)
    return is_like or bool(statement.inh_relations) or statement.HasField("of_typename")


def _serial_columns(statement: ast.CreateStmt) -> tuple[str, ...]:
    columns = list(find_nodes(statement, ast.ColumnDef))
    return tuple(
        c.colname for c in columns if c.type_name.names and c.type_name.names[-1].string.sval in _SERIAL
    )


def _name(relation: ast.RangeVar) -> str:
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else relation.relname


def _comment_above(between: str) -> tuple[list[str], list[str]]:
    """The words and the answers of the comment lines right above a statement; an empty line ends them."""
    words: list[str] = []
    answers: list[str] = []
    for line in reversed(between.rstrip(" ").removesuffix("\n").split("\n")):
        comment = line.strip()
        if not comment.startswith("--"):
            break
        comment = comment.removeprefix("--").strip()
        if comment.startswith("expect:"):
            answers.insert(0, comment.removeprefix("expect:").strip())
        else:
            words.insert(0, comment)
    return words, answers


def _row(answer: str) -> tuple[str | None, ...]:
    return tuple(None if (value := cell.strip()) == "NULL" else value for cell in answer.split("|"))
