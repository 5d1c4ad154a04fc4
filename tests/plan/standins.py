"""Operations as the loader sees them: parameters, a title, files, targets.  They implement the protocol of
plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, model_validator

from online_migrate.plan.load import load
from online_migrate.plan.model import Phase, Plan, Strict
from online_migrate.plan.operation_type import OperationType
from online_migrate.plan.sql_file import load_checks, read_sql, split_sql

PLAN: Final = Path("shop.yaml")


class TableParams(Strict):
    table: str | None = None
    tables: str | list[str] | None = None

    @model_validator(mode="after")
    def _has_one_target(self) -> TableParams:
        if (self.table is None) == (self.tables is None):
            raise ValueError("give exactly one of table and tables")
        return self


class CreateTables(Strict):
    file: str
    owner_and_grants_of: str | None = None


class CreateTablesLoaded(CreateTables):
    statements: tuple[str, ...]


class EnsureRow(Strict):
    id: str
    table: str
    where: dict[str, Any]
    values: dict[str, Any]


class AddColumn(TableParams):
    column: str
    type: str
    new_rows: str | int | None = None


class Backfill(TableParams):
    column: str
    value: str | int


class CreateIndex(TableParams):
    name: str
    columns: list[str] = Field(min_length=1)
    unique: bool = False


class AddForeignKey(TableParams):
    column: str
    references: str
    on_delete: Literal["cascade", "set null", "restrict", "no action"]
    name: str | None = None


class Column(TableParams):
    column: str


class SwapUnique(Strict):
    table: str
    from_: list[str] = Field(alias="from")
    to: str


class VerifySql(Strict):
    file: str


class VerifySqlLoaded(VerifySql):
    queries: tuple[str, ...]


@dataclass(frozen=True)
class Standin:
    name: str
    Params: type[BaseModel]
    phase: Phase = Phase.EXPAND
    shorthand: str | None = None
    takes_each_partition: bool = False

    @property
    def summary(self) -> str:
        return f"what {self.name} does"

    def title(self, params: BaseModel) -> str:
        named = [getattr(params, key, None) for key in ("id", "name", "to", "column", "file")]
        return " ".join([self.name, *(n for n in named if n)][:2])

    def load(self, params: BaseModel, folder: Path) -> BaseModel:
        if isinstance(params, CreateTables):
            text, path = read_sql(folder, params.file)
            made = tuple(s.text for s in split_sql(text, path=path))
            return CreateTablesLoaded(**params.model_dump(), statements=made)
        if isinstance(params, VerifySql):
            text, path = read_sql(folder, params.file)
            return VerifySqlLoaded(
                file=params.file, queries=tuple(c.sql for c in load_checks(text, path=path))
            )
        if isinstance(params, EnsureRow) and not params.where:
            raise ValueError("where is empty: it would be every row")
        return params

    def targets(self, params: BaseModel) -> tuple[str | None, ...] | str:
        if isinstance(params, TableParams):
            named = params.tables if params.table is None else [params.table]
            assert named is not None
            return named if isinstance(named, str) else tuple(named)
        return (getattr(params, "table", None),)


OPERATIONS: Final[Mapping[str, OperationType]] = {
    o.name: o
    for o in (
        Standin("create_tables", CreateTables, shorthand="file"),
        Standin("ensure_row", EnsureRow),
        Standin("add_column", AddColumn),
        Standin("backfill", Backfill, Phase.BACKFILL),
        Standin("create_index", CreateIndex),
        Standin("add_foreign_key", AddForeignKey, Phase.CONTRACT),
        Standin("set_not_null", Column, Phase.CONTRACT),
        Standin("drop_default", Column, Phase.CONTRACT),
        Standin("verify_owner", Column, Phase.CONTRACT),
        Standin("swap_unique", SwapUnique, Phase.CONTRACT),
        Standin("analyze", TableParams),
        Standin("verify_sql", VerifySql, shorthand="file"),
    )
}


def load_text(text: str, path: Path = PLAN) -> Plan:
    return load(text, OPERATIONS, path=path)
