"""The journal's rows as records: each table is converted in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, TypeVar

from online_migrate.journal.states import RunState, StageState, StepState

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    run_id: int
    plan: str
    fingerprint: str
    parts: Mapping[str, str]
    state: RunState
    reason: str
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    stage: str
    phase: str
    state: StageState
    reason: str
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    stage: str
    step: str
    table: str
    state: StepState
    reason: str
    started_at: datetime | None
    ended_at: datetime | None
    rows_done: int

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.stage, self.step, self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorRecord:
    """How far a backfill is: the next batch is stripe ``stripe`` of the slice that
    begins at page ``slice``.
    """

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
    account: str = ""
    """user@host that ran the command; ``approved_by`` may be another name, by ``--by``"""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str = ""
    revoke_note: str = ""

    def is_in_force(self, now: datetime) -> bool:
        """Does it open the gate at ``now``, by the server's clock?"""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRecord:
    at: datetime
    event: str
    stage: str
    step: str
    table: str
    fields: Mapping[str, object]


_COLUMNS: Final[Mapping[str, str]] = {"table": "table_name", "column": "column_name"}
"""of fields that have another name than their column"""
_FIELDS: Final[Mapping[type, tuple[str, ...]]] = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (RunRecord, StageRecord, StepRecord, CursorRecord, ApprovalRecord, HistoryRecord)
}
_STATES: Final[Mapping[type, type[RunState | StageState | StepState]]] = {
    RunRecord: RunState,
    StageRecord: StageState,
    StepRecord: StepState,
}


def columns(kind: type) -> str:
    """The columns to select for records of that kind."""
    return ", ".join(_COLUMNS.get(name, name) for name in _FIELDS[kind])


def to_records(kind: type[_Record], rows: Iterable[Sequence[Any]]) -> tuple[_Record, ...]:
    """The rows as records; what was selected beyond :func:`columns` is left out."""
    names, state = _FIELDS[kind], _STATES.get(kind)
    found = [dict(zip(names, row, strict=False)) for row in rows]
    if state is not None:
        found = [fields | {"state": state(fields["state"])} for fields in found]
    return tuple(kind(**fields) for fields in found)
