"""ensure_row: one row is there, adopted or made; what it is called by becomes known to later steps."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import psycopg
from psycopg import sql
from pydantic import Field

from online_migrate.errors import LeaseLost, VerificationFailed
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
from online_migrate.postgres.sqlstate import FENCE_LOST

MASKED_DIGITS = 12
"""hex digits of its SHA-256 by which a secret can be told from another, and no more"""


class EnsureRowParams(Strict):
    """A row, found by ``where``; made from ``where`` and ``values`` where it is not there."""

    id: str
    """later steps say <id.column>, for a column of the primary key"""
    table: str
    where: dict[str, str | int | bool] = Field(min_length=1)
    values: dict[str, str | int | bool | None] = Field(default_factory=dict)


class EnsureRow(Operation[EnsureRowParams]):
    """A row that is there is adopted as it is; nothing of it is written over."""

    name = "ensure_row"
    phase = Phase.EXPAND
    summary = "make a row unless it is there"
    Params: ClassVar[type[EnsureRowParams]] = EnsureRowParams

    def title(self, params: EnsureRowParams) -> str:
        return f"ensure_row {params.id}"

    def targets(self, params: EnsureRowParams) -> tuple[str | None, ...]:
        return (params.table,)

    def statements(self, place: Place, params: EnsureRowParams) -> tuple[Statement, ...]:
        columns = [*params.where, *params.values]
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            place.sql_table,
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join(sql.SQL("${}").format(sql.Literal(n)) for n in range(1, len(columns) + 1)),
        )
        return (
            Statement(
                sql=self._select(place, params, keys=list(params.where)), kind=Kind.READ, note="is it there?"
            ),
            Statement(sql=insert, kind=Kind.WRITE, note="values are bind parameters", group=1),
        )

    def _select(self, place: Place, params: EnsureRowParams, *, keys: list[str]) -> sql.Composed:
        condition = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(c), place.value(v)) for c, v in params.where.items()
        )
        return sql.SQL("SELECT {} FROM {} WHERE {} LIMIT 2").format(
            sql.SQL(", ").join(map(sql.Identifier, keys)), place.sql_table, condition
        )

    def preflight(self, place: Place, params: EnsureRowParams) -> list[Finding]:
        table = place.known.table(params.table)
        if table is None:
            return []
        findings = [
            Finding(
                severity=Severity.STOP,
                code="column_missing",
                fact=f"{params.table} has no column {column}",
                remedy="correct the plan",
            )
            for column in [*params.where, *params.values]
            if column not in table.columns
        ]
        if not findings and self.state(place, params) is State.CONFLICT:
            fact = (
                f"more than one row of {params.table} is what <{params.id}> should stand for: {params.where}"
            )
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="row_ambiguous",
                    fact=fact,
                    remedy="leave one of them, or say more in `where`",
                )
            )
        return findings

    def state(self, place: Place, params: EnsureRowParams) -> State:
        table = place.known.table(params.table)
        if table is None or any(c not in table.columns for c in params.where):
            return State.ABSENT
        rows = place.known.connection.execute(self._select(place, params, keys=list(params.where))).fetchall()
        if len(rows) > 1:
            return State.CONFLICT
        if not rows:
            return State.ABSENT
        known = any(name.startswith(f"{params.id}.") for name in place.references)
        return State.DONE if known else State.PARTIAL

    def execute(self, context: Context, params: EnsureRowParams) -> int:
        keys = self._key_columns(context)
        try:
            with context.work.transaction():
                context.work.execute(context.fence.sql)
                found = context.work.execute(self._select(context.place, params, keys=keys)).fetchone()
                row = found or self._insert(context, params, keys)
                for name, value in zip(keys, row, strict=True):
                    self._remember(context, f"{params.id}.{name}", value)
        except psycopg.Error as error:
            if error.sqlstate == FENCE_LOST:
                raise LeaseLost(str(error.diag.message_primary)) from None
            if error.sqlstate is None or context.work.closed:
                raise
            # The server's DETAIL may quote the row, secrets included: it goes nowhere.
            raise VerificationFailed(
                f"the row <{params.id}> of {params.table} was refused: {error.diag.message_primary}",
                remedy="see its constraints; then run again",
            ) from None
        return 0 if found else 1

    def _insert(self, context: Context, params: EnsureRowParams, keys: list[str]) -> tuple[object, ...]:
        values = {**params.where, **params.values}
        shown: dict[str, str] = {}
        bound = [self._bound(context, v, shown) for v in values.values()]
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING {}").format(
            context.place.sql_table,
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join([sql.Placeholder()] * len(values)),
            sql.SQL(", ").join(map(sql.Identifier, keys)),
        )
        row = context.work.execute(insert, bound).fetchone()
        assert row is not None  # INSERT … RETURNING of one row
        for name, value in shown.items():
            context.show_secret(name, value)  # before the commit: a token whose row did not commit is void
        return row

    def _bound(self, context: Context, value: object, shown: dict[str, str]) -> object:
        """A value as a bind parameter; secrets are filled in here and nowhere else."""
        if not isinstance(value, str) or not value.startswith("<secret."):
            if isinstance(value, str) and value.startswith("<") and value[1:-1] in context.place.references:
                return context.place.references[value[1:-1]]
            return value
        _, name, *form = value[1:-1].split(".")
        secret = context.secrets(name)
        if context.place.plan.secrets[name].generate is not None:
            shown[name] = secret
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return {"masked": f"sha256:{digest[:MASKED_DIGITS]}", "sha256": digest}.get(
            form[0] if form else "", secret
        )

    def _remember(self, context: Context, name: str, value: object) -> None:
        literal = sql.Literal(value).as_string(None)
        context.work.execute(
            "INSERT INTO online_migrate.reference (run_id, name, value) VALUES (%s, %s, %s)"
            " ON CONFLICT (run_id, name) DO UPDATE SET value = excluded.value",
            [context.run_id, name, literal],
        )

    def _key_columns(self, context: Context) -> list[str]:
        table = context.fresh_catalog().table(context.place.table)
        primary = None if table is None else next((c for c in table.constraints if c.kind == "p"), None)
        if primary is None:
            raise VerificationFailed(
                f"table {context.place.table} is gone or has no primary key",
                remedy="a row is referred to by its key: give it one",
            )
        return list(primary.columns)

    def verify(self, place: Place, params: EnsureRowParams) -> list[Finding]:
        if self.state(place, params) in (State.DONE, State.PARTIAL):
            return []
        fact = f"the row <{params.id}> of {params.table} is gone, or there are several"
        return [Finding(severity=Severity.STOP, code="row_gone", fact=fact, remedy="find out who removed it")]
