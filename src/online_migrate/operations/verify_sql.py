"""verify_sql: run queries of the operator and compare their answers with the expected ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import sql

from online_migrate.errors import VerificationFailed
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Context,
    Kind,
    Operation,
    Place,
    State,
    Statement,
)
from online_migrate.plan.model import Phase, Strict
from online_migrate.plan.sql_file import Check, load_checks, read_sql
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.long_statement import report_meanwhile
from online_migrate.postgres.search_path import SearchPath, set_local
from online_migrate.postgres.sqlstate import ErrorClass, error_class

SHOWN = 10
"""rows of an answer that a message tells"""


class VerifySqlParams(Strict):
    """A file of queries, each below comment lines `-- expect: …`."""

    file: str
    """SQL file, relative to the plan; above each query one comment line `-- expect: value | value` a row"""


class LoadedVerifySqlParams(VerifySqlParams):
    """With the file's content, so that the fingerprint sees it."""

    text: str

    def checks(self) -> tuple[Check, ...]:
        return load_checks(self.text, path=Path(self.file))


class VerifySql(Operation[VerifySqlParams]):
    """Run the queries of a file, each in a read-only transaction, and compare the answers with the expected
    rows.

    What it does: values are compared as psql prints them. A query whose answer differs, or that the server
    refuses, ends the run with exit code 5; all of them are listed.

    Locks: ACCESS SHARE on what the queries read. It writes nothing.

    On a crash: nothing is left behind; the next run starts it again.

    How to undo: nothing to undo.
    """

    name = "verify_sql"
    phase = Phase.CONTRACT
    shorthand = "file"
    is_verified_at_once = False
    only_verifies = True
    reads_unknown = True
    summary = "run queries and compare their answers with the expected ones"
    Params: ClassVar[type[VerifySqlParams]] = VerifySqlParams

    def title(self, params: VerifySqlParams) -> str:
        return f"verify_sql {params.file}"

    def load(self, params: VerifySqlParams, folder: Path) -> VerifySqlParams:
        text, path = read_sql(folder, params.file)
        load_checks(text, path=path)
        return LoadedVerifySqlParams(file=params.file, text=text)

    def _checks(self, params: VerifySqlParams) -> tuple[Check, ...]:
        assert isinstance(params, LoadedVerifySqlParams)  # the loader makes these
        return params.checks()

    def statements(self, place: Place, params: VerifySqlParams) -> tuple[Statement, ...]:  # noqa: ARG002
        return tuple(
            Statement(sql=sql.SQL(c.sql), kind=Kind.READ, note=c.title) for c in self._checks(params)
        )

    def preflight(self, place: Place, params: VerifySqlParams) -> list[Finding]:  # noqa: ARG002
        return []

    def state(self, place: Place, params: VerifySqlParams) -> State:  # noqa: ARG002
        return State.ABSENT

    def execute(self, context: Context, params: VerifySqlParams) -> int:
        with report_meanwhile(context.step.spec.title, clock=context.clock, emit=context.emit):
            findings = self._look(context.work, params)
        if findings:
            raise VerificationFailed("\n".join(f.fact for f in findings), remedy=findings[0].remedy)
        return 0

    def verify(self, place: Place, params: VerifySqlParams) -> list[Finding]:
        return self._look(place.known.connection, params)

    def _look(self, connection: Connection, params: VerifySqlParams) -> list[Finding]:
        return [
            Finding(
                severity=Severity.STOP,
                code="verify_sql",
                fact=f"{params.file}:{check.line}: {check.title}: {problem}",
                remedy="see which step should have made it, and what came after",
            )
            for check in self._checks(params)
            if (problem := _problem(connection, check)) is not None
        ]


def _problem(connection: Connection, check: Check) -> str | None:
    """What the answer is instead of the expected one; a query that the server refuses is an answer too."""
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(set_local(connection, SearchPath.PLAN))
            found = _answer(connection.execute(sql.SQL(check.sql)))
    except psycopg.Error as error:
        if error_class(error) is ErrorClass.LOST or connection.closed:
            raise
        return f"the server refuses the query: {error.diag.message_primary or error}"
    if found == check.expected:
        return None
    missing = [r for r in check.expected if r not in found]
    surplus = [r for r in found if r not in check.expected]
    if not missing and not surplus:  # the same rows, in another order or more often
        missing, surplus = list(check.expected), list(found)
    return f"expected and not found: {_rows(missing)}; found and not expected: {_rows(surplus)}"


def _answer(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[tuple[str | None, ...], ...]:
    """Each value as the server writes it, which is as psql prints it: psycopg would make Python's objects of
    them.
    """
    result = cursor.pgresult
    assert result is not None  # a query was executed
    encoding = cursor.connection.info.encoding
    values = [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]
    return tuple(tuple(None if v is None else v.decode(encoding) for v in row) for row in values)


def _rows(rows: list[tuple[str | None, ...]]) -> str:
    shown = "; ".join(" | ".join("NULL" if v is None else v for v in r) for r in rows[:SHOWN]) or "nothing"
    return shown if len(rows) <= SHOWN else f"{shown}; and {len(rows) - SHOWN} more"
