"""The records that a snapshot consists of: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from online_migrate.journal.lease import Holder
from online_migrate.journal.records import ApprovalRecord, HistoryRecord
from online_migrate.journal.requests import Pause
from online_migrate.observe.words import place_text

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step on one table."""

    stage: str
    step: str
    table: str
    """empty if the step is not about one"""
    state: str
    """pending, running, done or failed"""
    rows_done: int
    """earlier runs included"""
    rows_expected: int | None
    """an estimate from the catalog; the rows done once the step is done"""
    share_done: float | None
    """0…1: for a backfill pages done ÷ pages; None for another step that is not done yet"""
    rate: float | None
    """rows per second"""
    eta_s: float | None
    seconds: float | None
    """from its start until it was done or its run ended, with the pauses between runs if it was resumed"""
    reason: str
    is_passed: bool = False
    """running, all its pages are filled, and the proof that no row is left is still missing"""
    is_parked: bool = False
    """filled; its proof starts when the other tables of its step are filled too"""

    @property
    def key(self) -> Key:
        return (self.stage, self.step, self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Of a step that runs on several tables: how many are filled, those that are done included."""

    passed: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stage with its steps."""

    stage: str
    phase: str
    state: str
    """pending, waiting (at its gate), running, done or failed"""
    reason: str
    """what its gate waits for"""
    steps: tuple[StepView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitView:
    """A wait that is open now."""

    kind: str
    reason: str
    since: datetime
    stage: str
    step: str
    table: str

    @property
    def key(self) -> Key:
        return (self.stage, self.step, self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run as the journal shows it at ``read_at`` (the server's clock)."""

    plan: str
    state: str
    """running, stopped, waiting (at a gate), failed or done"""
    reason: str
    """why it waits, stopped or failed; empty while it works"""
    run_id: int
    started_at: datetime
    ended_at: datetime | None
    read_at: datetime
    holder: Holder | None
    """the runner that sent the newest heartbeat for this plan"""
    is_live: bool
    """a session of this plan's runner is connected"""
    stages: tuple[StageView, ...]
    waits: tuple[WaitView, ...]
    history: tuple[HistoryRecord, ...]
    """the newest events, oldest first"""
    approvals: tuple[ApprovalRecord, ...] = ()
    """of gates, since the run began, oldest first"""
    pause: Pause | None = None
    """that is in force"""
    notes: tuple[str, ...] = ()
    """about its runner, whether it waits or not: a stop was requested, its heartbeat is late"""

    @property
    def steps(self) -> tuple[StepView, ...]:
        return tuple(chain.from_iterable(stage.steps for stage in self.stages))

    @property
    def stage(self) -> StageView | None:
        """The stage that is running, or the next one."""
        return next((s for s in self.stages if s.state != "done"), None)

    @property
    def is_holding(self) -> bool:
        """Whether every running step waits.  While one table waits, another may be at work."""
        waits = {wait.key: wait for wait in self.waits}
        at_work = (s for s in self.steps if s.state == "running" and not s.is_parked)
        return bool(waits) and all(wait_at(s.key, waits) for s in at_work)

    @property
    def passes(self) -> Passes | None:
        """Of the step in which a table is filled and not done; None if there is none, or no other table."""
        passed = next((step for step in self.steps if step.is_passed), None)
        if passed is None:
            return None
        same = [s for s in self.steps if (s.stage, s.step) == (passed.stage, passed.step)]
        count = sum(s.is_passed or s.state == "done" for s in same)
        return Passes(passed=count, total=len(same)) if len(same) > 1 else None

    @property
    def locks(self) -> tuple[HistoryRecord, ...]:
        """The newest lock windows and failed lock attempts."""
        return tuple(r for r in self.history if r.event in {"lock_held", "lock_attempt_failed"})

    @property
    def seconds(self) -> float:
        """From the first start to the end or to now, pauses between runs included."""
        return ((self.ended_at or self.read_at) - self.started_at).total_seconds()


def wait_at(key: Key, waits: Mapping[Key, WaitView]) -> WaitView | None:
    """What the step waits for: the step itself, its stage, or the run."""
    stage, _, _ = key
    places = (key, (stage, "", ""), ("", "", ""))
    return next((waits[place] for place in places if place in waits), None)


def where(view: StepView | WaitView) -> str:
    """Its place in words."""
    return place_text(*view.key)
