"""add_primary_key: a primary key on columns that are NOT NULL, whose index is built concurrently before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from online_migrate.errors import VerificationFailed
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import (
    Context,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import Effect
from online_migrate.operations.schema_before import schema_before
from online_migrate.operations.shared.key_from_index import MANUAL, KeyFromIndex
from online_migrate.plan.model import Phase


class AddPrimaryKeyParams(TableParams):
    """A primary key."""

    columns: list[str] = Field(min_length=1)
    """its columns, in order; each is NOT NULL"""
    name: str = "<table>_pkey"
    """name of the constraint and of its index; <table> stands for the name of the table"""


class AddPrimaryKey(Operation[AddPrimaryKeyParams]):
    """Add a primary key: its index is built concurrently, then becomes the constraint.

    What it does: CREATE UNIQUE INDEX CONCURRENTLY, two scans of the table while the application reads and
    writes; then ADD CONSTRAINT … PRIMARY KEY USING INDEX. It scans nothing, because its columns are NOT NULL
    before: `check` and the step refuse a column that may be NULL. `check` looks for duplicates first. A valid
    index of this name on these columns is used; the same primary key is adopted, whatever its name.

    Locks: SHARE UPDATE EXCLUSIVE on the table for as long as the build takes, which blocks no reads or
    writes; then ACCESS EXCLUSIVE on the table in one lock window.

    On a crash: PostgreSQL may leave an INVALID index, which the next run drops and builds again; a valid
    index without its constraint becomes the primary key then.

    How to undo: ALTER TABLE … DROP CONSTRAINT, which drops the index as well. It takes ACCESS EXCLUSIVE.
    """

    name = "add_primary_key"
    phase = Phase.CONTRACT
    summary = "add a primary key, its index built CONCURRENTLY"
    descendants = Descendants.APART
    partitions_way = "name its partitions instead; the root's primary key is added manually"
    Params: ClassVar[type[AddPrimaryKeyParams]] = AddPrimaryKeyParams

    def title(self, params: AddPrimaryKeyParams) -> str:
        return f"add_primary_key {', '.join(params.columns)}"

    def effects(self, place: Place, params: AddPrimaryKeyParams) -> tuple[Effect, ...]:
        return self._key(place, params).effects

    def statements(self, place: Place, params: AddPrimaryKeyParams) -> tuple[Statement, ...]:
        return self._key(place, params).statements()

    def preflight(self, place: Place, params: AddPrimaryKeyParams) -> list[Finding]:
        return [*self._key(place, params).preflight(), *self._nullable(place, params)]

    def _nullable(self, place: Place, params: AddPrimaryKeyParams) -> Iterator[Finding]:
        """Of such a column the server would scan the table under ACCESS EXCLUSIVE."""
        table = schema_before(place).table(place.table)
        known = [] if table is None else [table.columns[c] for c in params.columns if c in table.columns]
        for column in known:
            if not column.is_not_null:
                yield Finding(
                    severity=Severity.STOP,
                    code="key_column_nullable",
                    fact=f"{place.table}.{column.name} may be NULL: ADD PRIMARY KEY would scan the table"
                    " under ACCESS EXCLUSIVE",
                    remedy=f"add a step before it: set_not_null: {{table: {place.table}, column:"
                    f" {column.name}}}",
                    manual=MANUAL,
                )

    def state(self, place: Place, params: AddPrimaryKeyParams) -> State:
        return self._key(place, params).state()

    def execute(self, context: Context, params: AddPrimaryKeyParams) -> int:
        key = self._key(context.place, params)
        if key.state() is State.DONE:
            return 0
        self._ensure_not_null(context, params)
        key.build(context)
        self._ensure_not_null(context, params)  # a build takes long
        key.adopt(context)
        return 0

    def _ensure_not_null(self, context: Context, params: AddPrimaryKeyParams) -> None:
        table = context.fresh_catalog().table(context.place.table)
        columns = {} if table is None else table.columns
        nullable = [c for c in params.columns if c not in columns or not columns[c].is_not_null]
        if nullable:
            raise VerificationFailed(
                f"{context.place.table} ({', '.join(nullable)}) may be NULL: ADD PRIMARY KEY would scan the"
                " table under ACCESS EXCLUSIVE",
                remedy="set it NOT NULL by a set_not_null step before, then run the same command again",
            )

    def verify(self, place: Place, params: AddPrimaryKeyParams) -> list[Finding]:
        return self._key(place, params).verify()

    def _key(self, place: Place, params: AddPrimaryKeyParams) -> KeyFromIndex:
        return KeyFromIndex(
            place=place, name=place.fill(params.name), columns=tuple(params.columns), is_primary=True
        )
