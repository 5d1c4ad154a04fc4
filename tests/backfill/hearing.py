"""What hears a backfill's events, and acts on them: a test waits for an event, not for a fixed time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from benchmarks.workbench import Heard
from online_migrate.events import Event, WaitContinues, WaitStarted


class ActsOnWait(Heard):
    """Calls ``action`` in a thread of its own, ``after_s`` after the first wait has started."""

    def __init__(self, after_s: float, action: Callable[[], object]) -> None:
        super().__init__()
        self._timer = threading.Timer(after_s, action)

    def emit(self, event_type: Callable[..., Event], **fields: Any) -> None:
        super().emit(event_type, **fields)
        if self.events[-1].name == "wait_started" and self._timer.ident is None:
            self._timer.start()


class ActsOnReports(Heard):
    """Calls each action when a wait is reported with its words, one after the other:
    no clock decides when.
    """

    def __init__(self, *script: tuple[str, Callable[[], object]]) -> None:
        super().__init__()
        self._script = list(script)

    def emit(self, event_type: Callable[..., Event], **fields: Any) -> None:
        super().emit(event_type, **fields)
        event = self.events[-1]
        if isinstance(event, WaitStarted | WaitContinues) and self._script:
            words, action = self._script[0]
            if words in event.reason:
                self._script.pop(0)
                action()
