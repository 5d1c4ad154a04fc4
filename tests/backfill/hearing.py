"""What hears a backfill's events, and acts on them: a test waits for an event, not for a fixed time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from benchmarks.workbench import Heard
from online_migrate.events import Event


class ActsOnWait(Heard):
    """Calls ``action`` in a thread of its own, ``after_s`` after the first wait has started."""

    def __init__(self, after_s: float, action: Callable[[], object]) -> None:
        super().__init__()
        self._timer = threading.Timer(after_s, action)

    def emit(self, event_type: Callable[..., Event], **fields: Any) -> None:
        super().emit(event_type, **fields)
        if self.events[-1].name == "wait_started" and self._timer.ident is None:
            self._timer.start()
