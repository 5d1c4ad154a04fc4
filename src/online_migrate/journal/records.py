"""What a row of the journal is in the program, and back: row ↔ record in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, TypeVar

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    run_id: int
    plan: str
    fingerprint: str
    parts: Mapping[str, str]
    state: str
    """running, stopped, waiting (at a gate), failed or done"""
    reason: str
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    stage: str
    phase: str
    state: str
    reason: str
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    stage: str
    step: str
    table: str
    state: str
    """pending, running, done or failed"""
    reason: str
    started_at: datetime | None
    ended_at: datetime | None
    rows_done: int

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.stage, self.step, self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorRecord:
    """How far a backfill has come: the next batch is stripe ``stripe`` of the slice that begins at page ``slice``."""

    stage: str
    step: str
    table: str
    column: str
    value: str
    """as an SQL expression"""
    pass_name: str
    relfilenode: int
    pages_total: int
    chunk_pages: int
    stripes: int
    chunk: int
    """first page of the chunk"""
    stripe: int
    slice: int
    rows_done: int
    batches: int
    moved_at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.stage, self.step, self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    stage: str
    approved_by: str
    note: str
    approved_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRecord:
    at: datetime
    event: str
    stage: str
    step: str
    table: str
    fields: Mapping[str, object]


_COLUMNS: Final[Mapping[str, str]] = {"table": "table_name", "column": "column_name"}
"""of fields whose column has another name"""
_FIELDS: Final[Mapping[type, tuple[str, ...]]] = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (RunRecord, StageRecord, StepRecord, CursorRecord, ApprovalRecord, HistoryRecord)
}


def columns(kind: type) -> str:
    """What to select for records of that kind."""
    return ", ".join(_COLUMNS.get(name, name) for name in _FIELDS[kind])


def to_records(kind: type[_Record], rows: Iterable[Sequence[Any]]) -> tuple[_Record, ...]:
    """The rows as records; what was selected beyond :func:`columns` is left out."""
    names = _FIELDS[kind]
    return tuple(kind(**dict(zip(names, row, strict=False))) for row in rows)
