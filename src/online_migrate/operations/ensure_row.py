"""ensure_row: find a row or insert it; later steps name it by a reference such as <master.id>."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql
from pydantic import Field

from online_migrate.errors import LockNotAcquired, VerificationFailed
from online_migrate.events import StatementExecuted
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.journal.store import put_reference
from online_migrate.operations.contract.base import (
    Context,
    Kind,
    Operation,
    Place,
    State,
    Statement,
)
from online_migrate.operations.contract.effects import Effect, MakesRow
from online_migrate.plan.model import Phase, Strict
from online_migrate.postgres.connection import name_beside_parameters
from online_migrate.postgres.search_path import SearchPath, local_path, set_local
from online_migrate.postgres.server_errors import translating_fence
from online_migrate.postgres.sqlstate import ErrorClass, error_class

MASKED_DIGITS = 12
"""hex digits of its SHA-256 that distinguish one secret from another, and no more"""

_QUIET = """
SELECT set_config(name, value, true)
  FROM (VALUES ('log_parameter_max_length', '0'), ('log_parameter_max_length_on_error', '0'),
    ('log_error_verbosity', 'terse')) s (name, value)
 WHERE current_setting('is_superuser') = 'on'"""
"""A server that logs slow or failing statements logs their parameters and rows too; only a superuser may keep
it from that.
"""


class EnsureRowParams(Strict):
    """A row, found by ``where``; inserted from ``where`` and ``values`` where no row is found."""

    id: str
    """name of the row: later steps write <id.column> for a column of its primary key"""
    table: str
    """table of the row; it needs a primary key"""
    where: dict[str, str | int | bool] = Field(min_length=1)
    """columns and values that identify the row; no secrets"""
    values: dict[str, str | int | bool | None] = Field(default_factory=dict)
    """further columns of a row that is inserted: constants, references, or secrets such as
    <secret.api_token.sha256>
    """


class EnsureRow(Operation[EnsureRowParams]):
    """Find one row, or insert it; its primary key is known to later steps.

    What it does: SELECT by `where`. One row is adopted as it is, and nothing of it is overwritten; two rows
    are a conflict. Where no row is found, it inserts one from `where` and `values`. Secrets are bind
    parameters and are never logged.

    Locks: ROW EXCLUSIVE on the table for one short transaction.

    On a crash: the row and its reference in the journal commit together. The next run finds the row.

    How to undo: DELETE the row, once nothing references it.
    """

    name = "ensure_row"
    phase = Phase.EXPAND
    summary = "find a row, or insert it"
    needs_owner = False
    Params: ClassVar[type[EnsureRowParams]] = EnsureRowParams

    def title(self, params: EnsureRowParams) -> str:
        return f"ensure_row {params.id}"

    def targets(self, params: EnsureRowParams) -> tuple[str | None, ...]:
        return (params.table,)

    def load(self, params: EnsureRowParams, folder: Path) -> EnsureRowParams:  # noqa: ARG002
        secret = next((c for c, v in params.where.items() if _is_secret(v)), None)
        if secret is not None:
            msg = (
                f"where: {secret} is a secret; find the row by what may be read, and give the secret under"
                " values"
            )
            raise ValueError(msg)
        return params

    def effects(self, place: Place, params: EnsureRowParams) -> tuple[Effect, ...]:
        columns = tuple(dict.fromkeys((*params.where, *params.values)))
        secret = tuple(c for c, v in params.values.items() if _is_secret(v))
        return (MakesRow(table=place.table, row=params.id, columns=columns, secret_columns=secret),)

    def statements(self, place: Place, params: EnsureRowParams) -> tuple[Statement, ...]:
        values = {**params.where, **params.values}
        numbered = [sql.SQL("${}").format(sql.Literal(n)) for n in range(1, len(values) + 1)]
        return (
            Statement(
                sql=self._select(place, params, keys=list(params.where)), kind=Kind.READ, note="is it there?"
            ),
            Statement(
                sql=self._insert(place, values, numbered),
                kind=Kind.WRITE,
                note="values are bind parameters",
                group=1,
            ),
        )

    def _select(self, place: Place, params: EnsureRowParams, *, keys: list[str]) -> sql.Composed:
        condition = sql.SQL(" AND ").join(
            sql.SQL("{} {} {}").format(sql.Identifier(c), place.equals(params.table, c), place.value(v))
            for c, v in params.where.items()
        )
        return sql.SQL("SELECT {} FROM {} WHERE {} LIMIT 2").format(
            sql.SQL(", ").join(map(sql.Identifier, keys)), place.sql_table, condition
        )

    def _insert(
        self,
        place: Place,
        values: Mapping[str, object],
        parameters: Sequence[sql.Composable],
        *,
        name: Callable[..., sql.Identifier] = sql.Identifier,
    ) -> sql.Composed:
        """ON CONFLICT: the server writes the row that a unique refuses into its log, secrets included; so it
        is not asked to.
        """
        return sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
            name(place.schema, place.table),
            sql.SQL(", ").join(map(name, values)),
            sql.SQL(", ").join(parameters),
        )

    def rehearsed(self, place: Place, params: EnsureRowParams) -> tuple[Statement, ...]:
        """The INSERT, with made-up secrets; none where the row exists or needs one that does not."""
        values = {**params.where, **params.values}
        if any(_is_unknown(place, v) for v in values.values() if not _is_secret(v)):
            return ()
        if place.known.connection.execute(self._select(place, params, keys=list(params.where))).fetchone():
            return ()
        literals = [sql.Literal(_made_up(v)) if _is_secret(v) else place.value(v) for v in values.values()]
        return (Statement(sql=self._insert(place, values, literals), kind=Kind.WRITE),)

    def find_row(
        self, place: Place, params: EnsureRowParams, columns: Sequence[str]
    ) -> tuple[str, sql.Composed] | None:
        if any(_is_unknown(place, v) for v in params.where.values()):
            return None
        return params.id, self._select(place, params, keys=list(columns))

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
                    code="row_conflict",
                    fact=fact,
                    remedy="leave one of them, or say more in `where`",
                )
            )
        return findings

    def state(self, place: Place, params: EnsureRowParams) -> State:
        table = place.known.table(params.table)
        if table is None or any(c not in table.columns for c in params.where):
            return State.ABSENT
        if any(_is_unknown(place, v) for v in params.where.values()):
            return State.ABSENT  # it references a row that is not made yet
        rows = place.known.connection.execute(self._select(place, params, keys=list(params.where))).fetchall()
        if len(rows) > 1:
            return State.CONFLICT
        if not rows:
            return State.ABSENT
        known = any(name.startswith(f"{params.id}.") for name in place.references)
        return State.DONE if known else State.PARTIAL

    def execute(self, context: Context, params: EnsureRowParams) -> int:
        began = context.clock.monotonic()
        keys = self._key_columns(context)
        select = self._select(context.place, params, keys=keys)
        try:
            with translating_fence(), context.work.transaction():
                context.work.execute(context.fence.sql)
                found = context.work.execute(select).fetchall()
                if not found:
                    self._make(context, params)
                rows = found or context.work.execute(select).fetchall()
                if len(rows) != 1:
                    raise VerificationFailed(
                        f"{len(rows) or 'no'} rows of {params.table} are what <{params.id}> should stand"
                        f" for: {params.where}",
                        remedy="exactly one row must match: see what writes to this table, or add columns to"
                        " `where`; then run the same command again",
                    )
                for name, value in zip(keys, rows[0], strict=True):
                    self._remember(context, f"{params.id}.{name}", value)
                # the table's deferred triggers fire at the COMMIT
                context.work.execute(set_local(context.work, SearchPath.ROLE))
        except psycopg.Error as error:
            if error_class(error) is ErrorClass.LOCK:
                raise LockNotAcquired(
                    f"the row <{params.id}> of {params.table}: {error.diag.message_primary}; nothing was"
                    " written",
                    remedy="wait until the session that locks it ends, or end it; then run the same"
                    " command again",
                ) from None
            if error_class(error) is not ErrorClass.PROGRAM or context.work.closed:
                raise
            # The server's DETAIL may quote the row, and some messages a value: no secret goes further.
            raise VerificationFailed(
                f"the row <{params.id}> of {params.table} was refused:"
                f" {self._without_secrets(context, params, error)}",
                remedy="read its constraints and triggers, correct the plan, then run the same command again",
            ) from None
        if found:
            return 0
        seconds = context.clock.monotonic() - began
        texts = [s.text for s in self.statements(context.place, params) if s.kind is Kind.WRITE]
        context.emit(StatementExecuted, statements=tuple(texts), kind=Kind.WRITE.value, seconds=seconds)
        return 1

    def _make(self, context: Context, params: EnsureRowParams) -> None:
        values = {**params.where, **params.values}
        shown: dict[str, str] = {}
        bound: list[object] = []
        parameters: list[sql.Composable] = []
        for value in values.values():
            if _is_reference(context, value):
                known = context.place.value(value).as_string(None)
                parameters.append(sql.SQL(known.replace("%", "%%")))
            else:
                bound.append(self._bound(context, value, shown))
                parameters.append(sql.Placeholder())
        context.work.execute(_QUIET)
        with local_path(context.work, SearchPath.ROLE):
            made = context.work.execute(
                self._insert(context.place, values, parameters, name=name_beside_parameters), bound
            )
        if made.rowcount == 0:
            raise VerificationFailed(
                f"the row <{params.id}> of {params.table} was refused: another row has the same value in one"
                " of"
                f" {', '.join(self._uniques(context, values))}",
                remedy="find the row that has these values; correct it or the plan, then run the same"
                " command again",
            )
        for name, value in shown.items():
            context.run.show_secret(
                name, value
            )  # before the commit: a token whose row did not commit is void

    def _bound(self, context: Context, value: object, shown: dict[str, str]) -> object:
        """A value as a bind parameter; secrets are filled in here and nowhere else."""
        if not isinstance(value, str) or not _is_secret(value):
            return value
        _, name, *form = value[1:-1].split(".")
        secret = context.run.secrets.value(name)
        if context.place.plan.secrets[name].generate is not None:
            shown[name] = secret
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return {"masked": f"sha256:{digest[:MASKED_DIGITS]}", "sha256": digest}.get(
            form[0] if form else "", secret
        )

    def _uniques(self, context: Context, values: Mapping[str, object]) -> list[str]:
        """The table's uniques that hold one of these columns."""
        table = context.fresh_catalog().table(context.place.table)
        indexes = () if table is None else table.indexes
        return [i.name for i in indexes if i.is_unique and set(i.columns) & values.keys()]

    def _without_secrets(self, context: Context, params: EnsureRowParams, error: psycopg.Error) -> str:
        """The server's own sentence, with each secret that it quotes named instead."""
        message = str(error.diag.message_primary or error)
        for value in params.values.values():
            if isinstance(value, str) and _is_secret(value):
                message = message.replace(str(self._bound(context, value, {})), value)
        return message

    def _remember(self, context: Context, name: str, value: object) -> None:
        literal = sql.Literal(value).as_string(None)
        put_reference(context.work, context.run_id, name, literal)

    def _key_columns(self, context: Context) -> list[str]:
        table = context.fresh_catalog().table(context.place.table)
        primary = None if table is None else next((c for c in table.constraints if c.kind == "p"), None)
        if primary is None:
            raise VerificationFailed(
                f"table {context.place.table} was dropped or has no primary key",
                remedy="a row is referred to by its key: give it one",
            )
        return list(primary.columns)

    def verify(self, place: Place, params: EnsureRowParams) -> list[Finding]:
        if self.state(place, params) in (State.DONE, State.PARTIAL):
            return []
        fact = f"the row <{params.id}> of {params.table} was deleted, or there are several"
        return [Finding(severity=Severity.STOP, code="row_gone", fact=fact, remedy="find out who removed it")]


def _is_secret(value: object) -> bool:
    return isinstance(value, str) and value.startswith("<secret.")


def _made_up(value: object) -> str:
    """A text of the length that the secret's form has."""
    form = str(value)[1:-1].split(".")[2:]
    return {"masked": f"sha256:{'0' * MASKED_DIGITS}", "sha256": "0" * 64}.get(
        form[0] if form else "", "0" * 16
    )


def _is_unknown(place: Place, value: object) -> bool:
    """A reference to a row that is not made yet."""
    return place.value(value).as_string(None) == value and str(value).startswith("<")


def _is_reference(context: Context, value: object) -> bool:
    return isinstance(value, str) and value.startswith("<") and value[1:-1] in context.place.references
