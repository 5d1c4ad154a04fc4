"""Report a wait: when it begins, every 10 s, when its cause changes, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Self

from online_migrate.clock import Clock
from online_migrate.events import WaitContinues, WaitEnded, WaitStarted

REPORT_EVERY_S = 10.0
"""while a wait lasts and its cause is the same"""
REPORT_CHANGED_S = 1.0
"""when the cause has changed: the operator may be about to end a session by its pid, but not each check is
news"""


class Waiting:
    """Reports waits, one kind at a time.

    A wait begins with the first :meth:`report` and ends with the ``with`` block, however that is left.
    """

    def __init__(self, emit: Callable[..., None], clock: Clock, kind: str) -> None:
        self._emit = emit
        self._clock = clock
        self._kind = kind
        self._began_at: float | None = None
        self._reported_at = 0.0
        self._cause: Hashable = None

    @property
    def has_begun(self) -> bool:
        return self._began_at is not None

    @property
    def may_report(self) -> bool:
        """Would a new cause be reported now?  If not, it need not be read."""
        return self._is_due(REPORT_CHANGED_S)

    def report(self, reason: str, kind: str | None = None, *, cause: Hashable = None) -> None:
        """Say why we wait now; emitted if it is due, or if ``cause`` has changed.  Another kind is another
        wait.
        """
        if kind not in (None, self._kind):
            self.end()
            self._kind = kind
        if not self._is_due(REPORT_EVERY_S if cause == self._cause else REPORT_CHANGED_S):
            return
        self._cause = cause
        now = self._reported_at = self._clock.monotonic()
        if self._began_at is None:
            self._began_at = now
            self._emit(WaitStarted, kind=self._kind, reason=reason)
        else:
            self._emit(WaitContinues, kind=self._kind, reason=reason, seconds=now - self._began_at)

    def _is_due(self, interval_s: float) -> bool:
        return self._began_at is None or self._clock.monotonic() - self._reported_at >= interval_s

    def end(self) -> None:
        """End the wait, if one has begun; the next :meth:`report` begins another."""
        if self._began_at is not None:
            seconds, self._began_at = self._clock.monotonic() - self._began_at, None
            self._emit(WaitEnded, kind=self._kind, seconds=seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
