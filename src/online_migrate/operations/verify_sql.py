"""verify_sql: queries of the operator's own, each with the answer that it must give."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from psycopg import sql

from online_migrate.errors import VerificationFailed
from online_migrate.operations.base import (
    Context,
    Finding,
    Kind,
    Operation,
    Place,
    Severity,
    State,
    Statement,
)
from online_migrate.plan.model import Phase, Strict
from online_migrate.plan.sql_file import Check, load_checks, read_sql
from online_migrate.postgres.connection import Connection


class VerifySqlParams(Strict):
    """A file of queries, each below comment lines `-- expect: …`."""

    file: str


class LoadedVerifySqlParams(VerifySqlParams):
    """With the file's content, so that the fingerprint sees it."""

    text: str

    def checks(self) -> tuple[Check, ...]:
        return load_checks(self.text, path=Path(self.file))


class VerifySql(Operation[VerifySqlParams]):
    """Reads only."""

    name = "verify_sql"
    phase = Phase.CONTRACT
    shorthand = "file"
    is_verified_at_once = False
    summary = "run queries and compare their answers with what is expected"
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
        findings = self._look(context.work, params)
        if findings:
            raise VerificationFailed("\n".join(f.fact for f in findings), remedy=findings[0].remedy)
        return 0

    def verify(self, place: Place, params: VerifySqlParams) -> list[Finding]:
        return self._look(place.known.connection, params)

    def _look(self, connection: Connection, params: VerifySqlParams) -> list[Finding]:
        findings = []
        for check in self._checks(params):
            with connection.transaction():
                connection.execute("SET TRANSACTION READ ONLY")
                rows = connection.execute(check.sql).fetchall()
            answer = tuple(tuple(_text(v) for v in row) for row in rows)
            if answer != check.expected:
                missing = [r for r in check.expected if r not in answer]
                surplus = [r for r in answer if r not in check.expected]
                fact = f"{params.file}:{check.line}: {check.title}: missing: {_rows(missing)}; not expected: {_rows(surplus)}"
                findings.append(
                    Finding(
                        severity=Severity.STOP,
                        code="verify_sql",
                        fact=fact,
                        remedy="see which step should have made it",
                    )
                )
        return findings


def _text(value: object) -> str | None:
    """As psql prints it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value)


def _rows(rows: list[tuple[str | None, ...]]) -> str:
    return "; ".join(" | ".join("NULL" if v is None else v for v in r) for r in rows[:10]) or "nothing"
