"""Calls a command of the operator's when a person is needed: at a gate, a long hold, a failure, the end.

The run does not wait for it: it has :data:`TIMEOUT_S`, and its failure is a warning.
Its environment holds few of our variables, none of a secret; what it prints is not read.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from online_migrate.events import (
    Event,
    GateWaiting,
    RunEnded,
    StepFailed,
    WaitContinues,
    WaitEnded,
    WaitStarted,
)
from online_migrate.observe.words import describe

TIMEOUT_S: Final = 30.0
"""then the command is killed, with what it has started"""
MOST: Final = 100
"""calls that wait for their turn"""
PASSED_ON: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""variables of the runner that the command gets"""

Place = tuple[str, str, str, str]


class Occasions:
    """Which events call for a person.  Pure."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._called: set[Place] = set()
        self._error = ""

    def take(self, event: Event) -> tuple[str, str] | None:
        """The occasion (gate, hold, failure or end) and a sentence; None for all other events.

        Of a hold once, when it lasts for ``hold_s``; a run that stops at a gate is reported as a gate only.
        """
        if isinstance(event, GateWaiting):
            return "gate", describe(event.name, event.fields())
        if isinstance(event, StepFailed):
            self._error = event.error
        if isinstance(event, RunEnded) and event.outcome != "gate":
            text = describe(event.name, event.fields())
            if event.outcome != "failed":
                return "end", text
            return "failure", f"{text}: {self._error}" if self._error else text
        return self._hold(event)

    def _hold(self, event: Event) -> tuple[str, str] | None:
        if not isinstance(event, WaitStarted | WaitContinues | WaitEnded):
            return None
        place = (event.stage, event.step, event.table, event.kind)
        if not isinstance(event, WaitContinues):
            self._called.discard(place)
        elif event.seconds >= self._hold_s and place not in self._called:
            self._called.add(place)
            return "hold", describe(event.name, event.fields())
        return None


class NotifySink:
    """Calls ``command`` for each occasion; neither blocks nor raises.

    ``report`` gets a sentence if a call failed.  Calls beyond :data:`MOST` that wait are dropped.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        facts: Mapping[str, str],
        hold_s: float,
        redact: Callable[[str], str],
        secret_names: Collection[str],
        report: Callable[[str], None],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._command = tuple(command)
        self._facts = facts
        self._redact = redact
        self._report = report
        self._environ = {n: environ[n] for n in PASSED_ON if n in environ and n not in secret_names}
        self._occasions = Occasions(hold_s)
        self._queue: queue.Queue[dict[str, str] | None] = queue.Queue(MOST)
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Queue a call for the thread if the event is an occasion."""
        occasion = self._occasions.take(event)
        if occasion is None:
            return
        place = {"stage": event.stage, "step": event.step, "table": event.table}
        name, text = occasion
        call = {**self._facts, "event": name, **place, "text": self._redact(text)}
        with suppress(queue.Full):
            self._queue.put_nowait(call)

    def close(self) -> None:
        """Let the last calls end; waits for :data:`TIMEOUT_S` and a little more at most."""
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(TIMEOUT_S + 2)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            problem = self._call(call)
            if problem:
                self._report(f"the command of --notify {problem} ({call['event']}); the run is not affected")

    def _call(self, call: Mapping[str, str]) -> str:
        """What went wrong; empty if nothing did."""
        given = {f"ONLINE_MIGRATE_{name.upper()}": text.replace("\0", "") for name, text in call.items()}
        try:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environ | given,
                start_new_session=True,  # Ctrl-C is for the run; and it is ended with what it has started
            )
        except OSError as error:
            return f"could not be started: {error.strerror}"
        try:
            child.communicate(json.dumps(call, ensure_ascii=False).encode(), timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return f"was killed: it took longer than {TIMEOUT_S:.0f} s"
        return "" if child.returncode == 0 else f"failed with exit code {child.returncode}"
