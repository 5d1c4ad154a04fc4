"""Kills a runner for ``online-migrate demo --interrupt``, after a number of statements in a stage.

The process sends itself SIGKILL before a statement: nothing is cleaned up, as after a power failure of its
host.
"""

from __future__ import annotations

import os
import signal

from online_migrate.demo.operate import KILL_VARIABLE, Kill
from online_migrate.events import Event, StageStarted


class SelfKill:
    """A sink that sees a stage start, and a hook that is called before every statement."""

    @classmethod
    def from_environment(cls) -> SelfKill:
        """The kill that :class:`~online_migrate.demo.operate.Operator` asked for; raises KeyError if it did
        not.
        """
        return cls(Kill.parse(os.environ[KILL_VARIABLE]))

    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._left: int | None = None

    def emit(self, event: Event) -> None:
        """Start to count when the stage starts."""
        if isinstance(event, StageStarted) and event.stage == self._kill.stage:
            self._left = self._kill.statements

    def on_statement(self) -> None:
        """Count; kill this process when the number is reached."""
        if self._left is None:
            return
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
