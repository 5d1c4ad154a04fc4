"""What operators ask of a run while it works, from any host: read once a second, and obeyed between two
transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final

from online_migrate.clock import Clock, Signal
from online_migrate.events import Note
from online_migrate.journal.requests import (
    Dismissal,
    Pause,
    read_abort,
    read_dismissals,
    read_pause,
    read_stop,
    take_dismissals,
    take_pauses,
)
from online_migrate.journal.sessions import Sessions
from online_migrate.journal.states import RequestKind
from online_migrate.journal.tuning import Tuning, read_tuning, take_tunes
from online_migrate.plan.hours import Hours
from online_migrate.plan.model import Pace
from online_migrate.waiting import Waiting

READ_EVERY_S: Final = 1.0
"""how often the journal is asked for requests: it costs a round trip"""
KIND: Final = "paused"
"""of the wait, in events and metrics"""
TIME_OVER: Final = "its time is over"
"""a stop for this reason is as the runner's command line asked"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the command line of a runner says about its time."""

    until: datetime | None = None
    """then it stops after its current batch or statement"""
    pause_file: Path | None = None
    """while this file exists, it is paused"""


class Steering:
    """Requests to a run.  This one has none: for work that no request may delay or end."""

    def read_stop(self) -> str | None:
        """Why the run is to stop, or None; may be a second old."""
        return None

    def is_aborted(self) -> bool:
        """Is the stop an abort: to cancel what runs?  As of :meth:`read_stop`."""
        return False

    def is_paused(self) -> bool:
        """Is the plan paused?  May be a second old."""
        return False

    def pace_of(self, pace: Pace, table: str) -> Pace:  # noqa: ARG002
        """The pace of a table's backfill, where the plan says ``pace``."""
        return pace

    def dismissals(self) -> Mapping[str, float]:
        """Standbys that need not be waited for if they were lost before that time, by the server's clock."""
        return {}

    def at_work(self) -> AbstractContextManager[None]:
        """While a worker takes a step: the run has paused when all such workers have."""
        return nullcontext()

    def wait_while_paused(self, signal: Signal, ensure_going: Callable[[], None]) -> float:  # noqa: ARG002
        """Wait while the plan is paused; the seconds that took.  The caller has no transaction open.

        Calls ``ensure_going`` each second, which raises what ends the wait.
        """
        return 0.0


class JournalSteering(Steering):
    """The requests in the journal; the workers of a run share it."""

    def __init__(
        self,
        sessions: Sessions,
        clock: Clock,
        *,
        plan: str,
        path: str,
        emit: Callable[..., None],
        limits: Limits = Limits(),  # it is immutable
        hours: Hours | None = None,
    ) -> None:
        self._limits = limits
        self._hours = hours
        self._sessions = sessions
        self._clock = clock
        self._plan = plan
        self._path = path
        self._emit = emit
        self._waiting = Waiting(emit, clock, KIND)
        self._turn = Lock()
        self._read_at = float("-inf")
        self._stop_by: str | None = None
        self._is_aborted = False
        self._reason: str | None = None
        """why the run is paused"""
        self._pause: Pause | None = None
        self._dismissals: tuple[Dismissal, ...] = ()
        self._tuning = Tuning()
        self._paces: dict[tuple[int, str], Pace] = {}
        """of the plan's paces, by table"""
        self._at_work = 0
        """steps that are taken now"""
        self._paused = 0
        """workers that have paused"""

    def read_stop(self) -> str | None:
        """The request stays open until :func:`~online_migrate.journal.requests.close_stops`."""
        self._read()
        until = self._limits.until
        if until is not None and datetime.now(UTC) >= until:
            return f"{TIME_OVER} ({until:%Y-%m-%d %H:%M:%S %Z})"
        return None if self._stop_by is None else f"requested by {self._stop_by}"

    def is_aborted(self) -> bool:
        return self._is_aborted

    def is_paused(self) -> bool:
        return self._read() is not None

    def pace_of(self, pace: Pace, table: str) -> Pace:
        """The plan's if the tuned one contradicts itself: the plan may have changed since."""
        with self._turn:
            key = (id(pace), table)
            if key not in self._paces:
                try:
                    self._paces[key] = self._tuning.of(pace, table)
                except ValueError:
                    self._paces[key] = pace
            return self._paces[key]

    def dismissals(self) -> Mapping[str, float]:
        return {d.standby: d.at_s for d in self._dismissals}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self._turn:
            self._at_work += 1
        try:
            yield
        finally:
            with self._turn:
                self._at_work -= 1

    def wait_while_paused(self, signal: Signal, ensure_going: Callable[[], None]) -> float:
        if self._read() is None:
            return 0.0
        began = self._clock.monotonic()
        with self._turn:
            self._paused += 1
        try:
            while (reason := self._read()) is not None:
                with self._turn:
                    self._report(reason)
                self._clock.wait(READ_EVERY_S, signal)
                ensure_going()
        finally:
            with self._turn:
                self._paused -= 1
                if not self._paused:
                    self._waiting.end()
        return self._clock.monotonic() - began

    def _report(self, reason: str) -> None:
        self._waiting.report(reason, cause=reason)
        pause = self._pause
        if pause is not None and pause.taken_at is None and self._paused >= self._at_work:
            take_pauses(self._sessions.journal, plan=self._plan)

    def _read(self) -> str | None:
        """Why the run is paused, or None; up to a second old."""
        with self._turn:
            now = self._clock.monotonic()
            if now - self._read_at >= READ_EVERY_S:
                self._read_at = now
                before = self._pause
                self._stop_by = read_stop(self._sessions.journal, plan=self._plan)
                self._is_aborted = self._stop_by is not None and read_abort(
                    self._sessions.journal, plan=self._plan
                )
                self._pause = read_pause(self._sessions.journal, plan=self._plan)
                self._note_end(before)
                self._read_tuning()
                self._read_dismissals()
                self._reason = self._find_reason()
            return self._reason

    def _find_reason(self) -> str | None:
        if self._pause is not None and self._pause.is_in_force:
            return pause_text(self._pause, self._path)
        file = self._limits.pause_file
        if file is not None and file.exists():
            return f"paused by file {file}; to resume, remove it"
        opens_at = None if self._hours is None else self._hours.opens_at(datetime.now(UTC))
        if opens_at is not None:
            return f"outside the plan's hours ({self._hours}); continues at {opens_at:%Y-%m-%d %H:%M %Z}"
        return None

    def _read_tuning(self) -> None:
        tuning = read_tuning(self._sessions.journal, plan=self._plan)
        if tuning != self._tuning:
            self._tuning = tuning
            self._paces.clear()
            take_tunes(self._sessions.journal, plan=self._plan)
            text = f"pace tuned by {tuning.by}: {tuning}" if tuning.tables else f"pace reset by {tuning.by}"
            self._emit(Note, message=text)

    def _read_dismissals(self) -> None:
        self._dismissals = read_dismissals(self._sessions.journal, plan=self._plan)
        new = [d for d in self._dismissals if not d.is_taken]
        for one in new:
            self._emit(Note, message=f"standby {one.standby} dismissed by {one.by}")
        if new:
            take_dismissals(self._sessions.journal, plan=self._plan)

    def _note_end(self, before: Pause | None) -> None:
        """Say who ended the pause, or that its time has come."""
        pause = self._pause
        if pause is None or pause.is_in_force:
            return
        if pause.kind is RequestKind.RESUME and pause.taken_at is None:
            take_pauses(self._sessions.journal, plan=self._plan)
            self._emit(Note, message=f"resumed by {pause.by}")
        elif pause.is_over and before is not None and before.is_in_force:
            self._emit(Note, message=f"the pause by {pause.by} has ended by itself")


def pause_text(pause: Pause, path: str) -> str:
    """By whom, since when, until when, and the command that ends it; ``path`` is the plan's."""
    until = "" if pause.until is None else f" until {pause.until:%Y-%m-%d %H:%M:%S %Z}"
    return (
        f"paused by {pause.by} since {pause.since:%Y-%m-%d %H:%M:%S %Z}{until};"
        f" resume with: online-migrate resume {path}"
    )
