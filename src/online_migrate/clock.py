"""Time, and waiting that a stop can wake: the only module that may sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Signal:
    """Has the operator asked the run to stop, and how urgently?  Thread-safe; set from signal handlers.

    ``stop`` lets the current batch finish and keeps the state; ``abort`` also cancels the statement that
    runs.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._abort = threading.Event()
        self._children: list[Signal] = []
        self.reason = ""

    def stop(self, reason: str) -> None:
        """Ask for a stop after the current batch."""
        self.reason = self.reason or reason
        self._stop.set()
        for child in tuple(self._children):
            child.stop(reason)

    def abort(self, reason: str) -> None:
        """Ask for a stop now: running statements are cancelled."""
        self.stop(reason)
        self._abort.set()
        for child in tuple(self._children):
            child.abort(reason)

    @contextmanager
    def child(self) -> Iterator[Signal]:
        """A signal that is stopped with this one, and may be stopped without it."""
        child = Signal()
        self._children.append(child)  # first: a stop that comes meanwhile reaches the child either way
        if self.is_stopping:
            child.stop(self.reason)
        if self.is_aborting:
            child.abort(self.reason)
        try:
            yield child
        finally:
            self._children.remove(child)

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def is_aborting(self) -> bool:
        return self._abort.is_set()

    @property
    def event(self) -> threading.Event:
        """The event behind :meth:`stop`, for ``tenacity.sleep_using_event``."""
        return self._stop


class Clock(Protocol):
    """Where the time comes from.  Tests bring their own."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def wait(self, seconds: float, signal: Signal) -> bool:
        """Wait for ``seconds`` or until a stop is asked for; True when it was."""


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, signal: Signal) -> bool:
        return signal.event.wait(seconds) if seconds > 0 else signal.is_stopping
