"""add_unique: a unique constraint, whose index is built concurrently before."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from online_migrate.findings import Finding
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
from online_migrate.operations.shared.key_from_index import KeyFromIndex
from online_migrate.plan.model import Phase


class AddUniqueParams(TableParams):
    """A unique constraint."""

    columns: list[str] = Field(min_length=1)
    """its columns, in order"""
    name: str
    """name of the constraint and of its index; <table> stands for the name of the table"""
    nulls_not_distinct: bool = False
    """from PostgreSQL 15 on: two NULLs are the same value"""
    deferrable: Literal["initially immediate", "initially deferred"] | None = None
    """a DEFERRABLE constraint: duplicates are refused at the end of the statement, or of the transaction; it
    serves no ON CONFLICT and no foreign key"""


class AddUnique(Operation[AddUniqueParams]):
    """Add a unique constraint: its index is built concurrently, then becomes the constraint.

    What it does: CREATE UNIQUE INDEX CONCURRENTLY, two scans of the table while the application reads and
    writes; then ADD CONSTRAINT … UNIQUE USING INDEX, which scans nothing. `check` looks for duplicates first.
    A valid index of this name on these columns is used; the same constraint is adopted, whatever its name.

    Locks: SHARE UPDATE EXCLUSIVE on the table for as long as the build takes, which blocks no reads or
    writes; then ACCESS EXCLUSIVE on the table in one lock window.

    On a crash: PostgreSQL may leave an INVALID index, which the next run drops and builds again; a valid
    index without its constraint becomes the constraint then.

    How to undo: ALTER TABLE … DROP CONSTRAINT, which drops the index as well. It takes ACCESS EXCLUSIVE.
    """

    name = "add_unique"
    phase = Phase.CONTRACT
    summary = "add a unique constraint, its index built CONCURRENTLY"
    descendants = Descendants.APART
    partitions_way = (
        "name its partitions instead; of the root, create_index with unique: true does the same without a"
        " constraint"
    )
    Params: ClassVar[type[AddUniqueParams]] = AddUniqueParams

    def title(self, params: AddUniqueParams) -> str:
        return f"add_unique {', '.join(params.columns)}"

    def effects(self, place: Place, params: AddUniqueParams) -> tuple[Effect, ...]:
        return self._key(place, params).effects

    def statements(self, place: Place, params: AddUniqueParams) -> tuple[Statement, ...]:
        return self._key(place, params).statements()

    def preflight(self, place: Place, params: AddUniqueParams) -> list[Finding]:
        return list(self._key(place, params).preflight())

    def state(self, place: Place, params: AddUniqueParams) -> State:
        return self._key(place, params).state()

    def execute(self, context: Context, params: AddUniqueParams) -> int:
        key = self._key(context.place, params)
        if key.state() is not State.DONE:
            key.build(context)
            key.adopt(context)
        return 0

    def verify(self, place: Place, params: AddUniqueParams) -> list[Finding]:
        return self._key(place, params).verify()

    def _key(self, place: Place, params: AddUniqueParams) -> KeyFromIndex:
        return KeyFromIndex(
            place=place,
            name=place.fill(params.name),
            columns=tuple(params.columns),
            nulls_not_distinct=params.nulls_not_distinct,
            deferrable="" if params.deferrable is None else f"DEFERRABLE {params.deferrable.upper()}",
        )
