"""add_foreign_key: NOT VALID in a short window, then VALIDATE while readers and writers go on."""

from __future__ import annotations

from typing import ClassVar, Literal

import psycopg
from psycopg import sql
from pydantic import Field

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
    TableParams,
)
from online_migrate.operations.steps import need, run_long, run_window
from online_migrate.plan.model import Phase
from online_migrate.postgres.catalog import ConstraintInfo
from online_migrate.postgres.locks import LockMode

MANUAL = "https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES"
_ACTIONS = {"no action": "a", "restrict": "r", "cascade": "c", "set null": "n"}


class AddForeignKeyParams(TableParams):
    """A foreign key from one column."""

    column: str
    references: str = Field(pattern=r"^\w+\.\w+$")
    """table.column"""
    on_delete: Literal["no action", "restrict", "cascade", "set null"] = "no action"
    name: str = "<table>_<column>_fkey"

    @property
    def parent(self) -> str:
        return self.references.split(".")[0]

    @property
    def parent_column(self) -> str:
        return self.references.split(".")[1]


class AddForeignKey(Operation[AddForeignKeyParams]):
    """SHARE ROW EXCLUSIVE on both tables, instant; then SHARE UPDATE EXCLUSIVE on the child for one scan."""

    name = "add_foreign_key"
    phase = Phase.CONTRACT
    summary = "add a foreign key NOT VALID, then validate it"
    Params: ClassVar[type[AddForeignKeyParams]] = AddForeignKeyParams

    def title(self, params: AddForeignKeyParams) -> str:
        return f"add_foreign_key {params.column}"

    def statements(self, place: Place, params: AddForeignKeyParams) -> tuple[Statement, ...]:
        name = sql.Identifier(self._name(place, params))
        add = sql.SQL(
            "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) ON DELETE {} NOT VALID"
        ).format(
            place.sql_table,
            name,
            sql.Identifier(params.column),
            sql.Identifier(place.schema, params.parent),
            sql.Identifier(params.parent_column),
            sql.SQL(params.on_delete.upper()),
        )
        validate = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(place.sql_table, name)
        strong = tuple(
            need(place.schema, t, LockMode.SHARE_ROW_EXCLUSIVE) for t in (params.parent, place.table)
        )
        scan = (
            need(place.schema, place.table, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True),
            need(place.schema, params.parent, LockMode.ROW_SHARE, is_long=True),
        )
        return (
            Statement(sql=add, kind=Kind.WINDOW, locks=strong),
            Statement(sql=validate, kind=Kind.LONG, locks=scan, group=1),
        )

    def preflight(self, place: Place, params: AddForeignKeyParams) -> list[Finding]:
        table = place.known.table(place.table)
        name = self._name(place, params)
        findings = []
        if len(name.encode()) > 63:
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="name_too_long",
                    fact=f"{name!r} is longer than 63 bytes",
                    remedy="give `name`",
                )
            )
        if table is not None and table.kind == "p" and place.known.connection.info.server_version < 180000:
            fact = f"{place.table} is partitioned: a NOT VALID foreign key on it needs PostgreSQL 18"
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="partitioned",
                    fact=fact,
                    remedy="name its partitions instead",
                    manual=MANUAL,
                )
            )
        if self.state(place, params) is State.CONFLICT:
            fact = f"{place.table} has another foreign key on {params.column}, or another constraint named {name}"
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="foreign_key_conflict",
                    fact=fact,
                    remedy="drop it, or change the plan",
                    manual=MANUAL,
                )
            )
        return findings

    def state(self, place: Place, params: AddForeignKeyParams) -> State:
        table = place.known.table(place.table)
        if table is None:
            return State.ABSENT
        same = [c for c in table.foreign_keys if self._is_planned(c, params)]
        if same:
            return State.DONE if any(c.is_valid for c in same) else State.PARTIAL
        taken = any(c.name == self._name(place, params) for c in table.constraints)
        other = any(
            c.columns == (params.column,) and c.ref_table == params.parent for c in table.foreign_keys
        )
        return State.CONFLICT if taken or other else State.ABSENT

    def execute(self, context: Context, params: AddForeignKeyParams) -> int:
        add, validate = self.statements(context.place, params)
        if self.state(context.place, params) is State.ABSENT:
            run_window(context, [add])
        try:
            run_long(context, validate)
        except psycopg.errors.ForeignKeyViolation as error:
            raise VerificationFailed(
                f"{context.place.table}.{params.column}: {error.diag.message_primary}; {error.diag.message_detail}",
                remedy=f"mend the rows whose {params.column} has no {params.references}, then run the same command again",
            ) from error
        return 0

    def verify(self, place: Place, params: AddForeignKeyParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        fact = f"the foreign key of {place.table}.{params.column} to {params.references} is gone or not valid"
        return [
            Finding(
                severity=Severity.STOP,
                code="foreign_key_gone",
                fact=fact,
                remedy="add it again and validate it",
                manual=MANUAL,
            )
        ]

    def _name(self, place: Place, params: AddForeignKeyParams) -> str:
        return place.fill(params.name).replace("<column>", params.column)

    def _is_planned(self, constraint: ConstraintInfo, params: AddForeignKeyParams) -> bool:
        return (
            constraint.columns == (params.column,)
            and constraint.ref_table == params.parent
            and constraint.ref_columns == (params.parent_column,)
            and constraint.on_delete == _ACTIONS[params.on_delete]
        )
