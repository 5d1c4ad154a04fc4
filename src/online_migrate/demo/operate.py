"""Applies the plan as an operator would: by the command line, in a process of its own, killed if asked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import psycopg

from online_migrate.clock import Signal, SystemClock
from online_migrate.errors import GateClosed, OnlineMigrateError
from online_migrate.journal.store import read_closed_gate

KILL_VARIABLE: Final = "ONLINE_MIGRATE_KILL"
"""``STAGE:STATEMENTS``, read by ``online_migrate.cli.killed_run`` only"""

_METRICS: Final = re.compile(rb"^metrics: (http\S+)\s*$", re.MULTILINE)
_TICK_S: Final = 0.5
_END_S: Final = 20.0  # for the current batch to end after SIGTERM
_LOG_LINES: Final = 15
_STATEMENTS_A_STEP: Final = 8  # a lower bound: stages have 14 to 40 statements a step on average


class DemoFailed(OnlineMigrateError):
    """The plan did not complete on the demo's own shop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Kill the runner before its next statement, after it has sent ``statements`` in this stage."""

    stage: str
    statements: int

    def __str__(self) -> str:
        return f"{self.stage}:{self.statements}"

    @classmethod
    def parse(cls, text: str) -> Kill:
        """The inverse of str; raises ValueError."""
        stage, _, statements = text.rpartition(":")
        return cls(stage=stage, statements=int(statements))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Runs commands for a plan on a database, as an operator at a terminal does.

    ``secrets`` are environment variables for the runner, whose working directory is ``folder``; generated
    secrets are written below it.  ``on_tick`` is called twice a second while it runs, ``on_metrics`` with the
    address of its metrics.
    """

    dsn: str
    plan: Path
    folder: Path
    secrets: Mapping[str, str]
    on_tick: Callable[[], None] = lambda: None
    on_metrics: Callable[[str], None] | None = None
    """None: the runner serves no metrics"""

    @property
    def log(self) -> Path:
        """The file with what the commands print."""
        return self.folder / "run.log"

    def run(self, kill: Kill | None = None) -> int:
        """``online-migrate run``; the exit code, which is -9 when it was killed."""
        module = "online_migrate.cli" if kill is None else "online_migrate.cli.killed_run"
        options = () if self.on_metrics is None else ("--metrics-port", "0")
        return self._call(module, "run", str(self.plan), *options, kill=kill)

    def approve(self, stage: str) -> None:
        """``online-migrate approve``."""
        code = self._call("online_migrate.cli", "approve", str(self.plan), stage)
        if code:
            raise self.failed(f"approve {stage}", code)

    def failed(self, command: str, code: int) -> DemoFailed:
        """The error to raise, with the last lines that the command printed."""
        lines = "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        return DemoFailed(
            f"online-migrate {command} exited with {code}; its last lines:\n{lines}",
            remedy="this is a bug: report it",
        )

    def _call(self, module: str, *arguments: str, kill: Kill | None = None) -> int:
        environment = {
            **os.environ,
            **self.secrets,
            "ONLINE_MIGRATE_DSN": self.dsn,
            "XDG_STATE_HOME": str(self.folder),
        }
        if kill is not None:
            environment[KILL_VARIABLE] = str(kill)
        with self.log.open("ab") as log:
            begin = log.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches this process, which then stops the runner
                start_new_session=True,
            )
        try:
            return self._await(process, begin)
        finally:
            _end(process)

    def _await(self, process: subprocess.Popen[bytes], begin: int) -> int:
        clock, never = SystemClock(), Signal()
        next_tick, is_reported = clock.monotonic(), self.on_metrics is None
        while (code := process.poll()) is None:
            if clock.monotonic() >= next_tick:
                is_reported = is_reported or self._report_metrics(begin)
                self.on_tick()
                next_tick = clock.monotonic() + _TICK_S
            clock.wait(0.05, never)
        self.on_tick()
        return code

    def _report_metrics(self, begin: int) -> bool:
        """Report where the runner serves its metrics; False while its part of the log, from ``begin`` on,
        does not say.
        """
        with self.log.open("rb") as log:
            log.seek(begin)
            found = _METRICS.search(log.read())
        if found is not None and self.on_metrics is not None:
            self.on_metrics(found[1].decode())
        return found is not None


def carry_out(
    operator: Operator, *, at_gate: Callable[[str], None], kills: Iterable[Kill] = ()
) -> tuple[Kill, ...]:
    """Run the plan to its end; approve each gate after ``at_gate(stage)``; run again after each of ``kills``.

    Returns the kills.  Raises :class:`DemoFailed` if a command exits with an unexpected code, or if a stage
    ended before its kill.
    """
    ahead, done, approved = iter(kills), list[Kill](), set[str]()
    kill = next(ahead, None)
    while (code := operator.run(kill)) != 0:
        if code == -signal.SIGKILL and kill is not None:
            done.append(kill)
            kill = next(ahead, None)
        elif code == GateClosed.exit_code and (stage := read_gate(operator.dsn)) not in approved:
            at_gate(stage)
            operator.approve(stage)
            approved.add(stage)
        else:
            raise operator.failed("run", code)
    if kill is not None:
        raise DemoFailed(
            f"stage {kill.stage} ended before {kill.statements} statements",
            remedy="this is a bug: report it with the seed",
        )
    return tuple(done)


def draw_kills(steps: Mapping[str, int], dice: Random) -> tuple[Kill, ...]:
    """One kill in each stage, after a random number of statements that a stage of so many steps certainly
    reaches.
    """
    return tuple(
        Kill(stage=stage, statements=dice.randint(1, _STATEMENTS_A_STEP * count))
        for stage, count in steps.items()
    )


def read_gate(dsn: str) -> str:
    """The stage at whose gate the run waits; empty if there is none."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return read_closed_gate(connection)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a runner that still runs: SIGTERM first, then SIGKILL."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
