"""What can happen during a run, as frozen records, and the protocol of those who listen.

The journal is the truth, events are the news: nothing reads an event to decide what to do next.  One
vocabulary serves logs, metrics, the terminal and the journal's history.  Times are seconds, sizes are bytes.
No event carries a secret.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; ``stage``, ``step`` and ``table`` say where, and are empty where it is the
    run's.
    """

    stage: str = ""
    step: str = ""
    table: str = ""

    @property
    def name(self) -> str:
        """The event's name in logs and in the journal: ``BatchDone`` → ``batch_done``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def fields(self) -> dict[str, Any]:
        """The facts, without empty places."""
        return {k: v for k, v in asdict(self).items() if v not in ("", None, ())}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    plan: str
    run_id: int
    resumed: bool
    steps_total: int
    steps_done: int
    by: str = ""
    """user@host that started the runner"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    outcome: str
    """done, stopped, gate, interrupted or failed"""
    exit_code: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEnded(Event):
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateWaiting(Event):
    approval: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateApproved(Event):
    approved_by: str
    approval: str = ""
    """what was approved: the gate's sentence"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    resumed: bool
    """True where the journal or the catalog shows that it was begun before"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded(Event):
    outcome: str
    """done, or adopted where the catalog already was what the step makes"""
    seconds: float
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementExecuted(Event):
    """A statement of a step was executed and committed, or all those of one lock window."""

    statements: tuple[str, ...]
    """as `explain` prints them; of a backfill one for all its batches, so without the pages of each"""
    kind: str
    """window, long, batch or write"""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(Event):
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReopened(Event):
    """A finished step was reopened with `redo`, because its object was changed or dropped."""

    by: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAccepted(Event):
    """A changed plan was accepted for a run that had begun."""

    by: str
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillStarted(Event):
    """A pass over a table begins or continues."""

    pass_name: str
    """interleaved, sequential or sweep"""
    stripes: int
    chunk_pages: int
    pages_done: int
    pages_total: int
    rows_expected: int
    """an estimate, from the catalog"""
    rows_done: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDone(Event):
    """One batch has committed."""

    rows: int
    pages: int
    seconds: float
    pause_s: float
    rows_done: int
    """of the step so far, earlier runs included"""
    share_done: float
    """0…1: pages passed ÷ pages at the start"""
    eta_s: float | None
    skipped_locked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput(Event):
    """The batches of one table over some seconds, summed: what the journal keeps of them.  Made by its keeper
    only.
    """

    rows: int
    batches: int
    pages: int
    worked_s: float
    paused_s: float
    rows_done: int
    """of the step so far, earlier runs included"""
    share_done: float
    skipped_locked: int = 0
    """batches that left locked rows to the sweep"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRows(Event):
    """Rows without a value that were found after the pass."""

    rows: int
    more: bool
    """True where there are more than were counted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStarted(Event):
    """A wait begins.  ``kind`` is one of a few names, ``reason`` a sentence."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitContinues(Event):
    """The wait continues; ``reason`` is as it is now: the blocker may have changed."""

    kind: str
    reason: str
    seconds: float
    """since the wait began"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitEnded(Event):
    kind: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Event):
    """What a throttler sees: 1.0 and above holds us."""

    throttler: str
    utilisation: float
    reason: str
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockersSeen(Event):
    """Sessions that block a lock request or a long statement."""

    waiting_for: str
    blockers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockAttemptFailed(Event):
    """A strong lock could not be acquired in time; everything was rolled back."""

    relation: str
    lock: str
    attempt: int
    waited_s: float
    pause_s: float
    reason: str
    blockers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHeld(Event):
    """A lock window has committed."""

    relation: str
    lock: str
    attempts: int
    waited_s: float
    """longest time in the lock's queue: how long an application statement could have waited behind our lock
    request"""
    held_s: float
    """from the grant of the strong lock to the end of the commit, by the server's clock"""
    locks: tuple[str, ...] = ()
    """every strong lock that was held, as declared and compared"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongStatement(Event):
    """Progress of a long statement, which blocks no application statement; of a proof, what it proves."""

    statement: str
    phase: str
    share_done: float | None
    """None where the server does not say"""
    seconds: float
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked(Event):
    """A stop was asked for while a long statement runs; the statement may finish."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    kind: str
    attempt: int
    error: str
    pause_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected(Event):
    seconds: float
    lost: str = ""
    """which sessions were lost, and what the server said"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretShown(Event):
    """A generated secret was handed over, on the terminal or in a file; never its value."""

    secret: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFound(Event):
    """A finding of the check before the run began or continued.  Only the journal keeps it: people have seen
    it.
    """

    severity: str
    fact: str
    where: str = ""
    """step and table, in words"""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesMeasured(Event):
    """Bytes of each table with its TOAST, and of its indexes, when a run began and ended.  Made by the
    journal's keeper.
    """

    sizes: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Event):
    """A sentence for the operator."""

    message: str
    is_warning: bool | None = None
    """True if the operator must see it even on a live screen"""


class Sink(Protocol):
    """Something that listens."""

    def emit(self, event: Event) -> None:
        """Receive ``event``; must not raise and must not block."""


class Sinks:
    """Several sinks as one; each receives one event at a time, whatever thread emits it, so that none needs a
    lock.
    """

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self._sinks = tuple(sinks)
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        with self._lock:
            for sink in self._sinks:
                sink.emit(event)
