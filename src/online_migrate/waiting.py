"""A wait that is told: when it begins, every 10 s and once another is in the way, and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Self

from online_migrate.clock import Clock
from online_migrate.events import WaitContinues, WaitEnded, WaitStarted

REPORT_EVERY_S = 10.0
"""while a wait lasts: the operator is about to end a session by its pid, and the blocker may have changed"""
REPORT_CHANGED_S = 1.0
"""where the blocker has changed: sooner, but not with each check"""


class Waiting:
    """Of one kind at a time.  Begins with the first :meth:`tell`; ends with the ``with`` block, however that is left."""

    def __init__(self, emit: Callable[..., None], clock: Clock, kind: str) -> None:
        self._emit = emit
        self._clock = clock
        self._kind = kind
        self._began: float | None = None
        self._told = 0.0
        self._who: Hashable = None

    @property
    def may_report(self) -> bool:
        """Is it worth a look at who is in the way?"""
        return self._has_passed(REPORT_CHANGED_S)

    def tell(self, reason: str, kind: str | None = None, *, who: Hashable = None) -> None:
        """Why we wait, as it is now; heard where it is due, or where ``who`` is not who it was.  Another kind is another wait."""
        if kind not in (None, self._kind):
            self.end()
            self._kind = kind
        if not self._has_passed(REPORT_EVERY_S if who == self._who else REPORT_CHANGED_S):
            return
        self._who = who
        now = self._told = self._clock.monotonic()
        if self._began is None:
            self._began = now
            self._emit(WaitStarted, kind=self._kind, reason=reason)
        else:
            self._emit(WaitContinues, kind=self._kind, reason=reason, seconds=now - self._began)

    def _has_passed(self, seconds: float) -> bool:
        """Since it was told last, if it was."""
        return self._began is None or self._clock.monotonic() - self._told >= seconds

    def end(self) -> None:
        """It is over, if it ever began; the next :meth:`tell` begins another."""
        if self._began is not None:
            seconds, self._began = self._clock.monotonic() - self._began, None
            self._emit(WaitEnded, kind=self._kind, seconds=seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
