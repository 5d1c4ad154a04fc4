"""The plan carried out as an operator would: by the command line, in a process of its own, killed where asked."""

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
"""``STAGE:STATEMENTS``, read by ``online_migrate.cli.victim`` only"""

_METRICS: Final = re.compile(rb"^metrics: (http\S+)\s*$", re.MULTILINE)
_TICK_S: Final = 0.5
_END_S: Final = 20.0  # to end after SIGTERM: a batch, and the state kept
_LOG_LINES: Final = 15
_STATEMENTS_A_STEP: Final = 8  # every step has more, on average over its stage: 14 to 40 were counted


class DemoFailed(OnlineMigrateError):
    """The plan did not run to its end on the demo's own shop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """The runner is killed before its next statement, when it has sent so many in this stage."""

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
    """Somebody at a terminal, with a plan and a database.

    ``secrets`` are environment variables for the runner, whose working directory is ``folder``; ``on_tick`` is called
    twice a second while it runs, ``on_metrics`` with the address of its metrics when it has said where they are.
    """

    dsn: str
    plan: Path
    folder: Path
    secrets: Mapping[str, str]
    on_tick: Callable[[], None] = lambda: None
    on_metrics: Callable[[str], None] | None = None
    """None: the runner serves none"""

    @property
    def log(self) -> Path:
        """What the commands print."""
        return self.folder / "run.log"

    def run(self, kill: Kill | None = None) -> int:
        """``online-migrate run``; the exit code, which is -9 when it was killed."""
        module = "online_migrate.cli" if kill is None else "online_migrate.cli.victim"
        options = () if self.on_metrics is None else ("--metrics-port", "0")
        return self._call(module, "run", str(self.plan), *options, kill=kill)

    def approve(self, stage: str) -> None:
        """``online-migrate approve``."""
        code = self._call("online_migrate.cli", "approve", str(self.plan), stage)
        if code:
            raise self.failed(f"approve {stage}", code)

    def failed(self, command: str, code: int) -> DemoFailed:
        """What to raise, with the last words of the command."""
        words = "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        return DemoFailed(
            f"online-migrate {command} ended with {code}; its last words:\n{words}",
            remedy="this is a bug: report it",
        )

    def _call(self, module: str, *arguments: str, kill: Kill | None = None) -> int:
        environment = {**os.environ, **self.secrets, "ONLINE_MIGRATE_DSN": self.dsn}
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
                start_new_session=True,  # Ctrl-C in the terminal reaches us; we end it in turn
            )
        try:
            return self._await(process, begin)
        finally:
            _end(process)

    def _await(self, process: subprocess.Popen[bytes], begin: int) -> int:
        clock, nobody = SystemClock(), Signal()
        next_tick, is_told = clock.monotonic(), self.on_metrics is None
        while (code := process.poll()) is None:
            if clock.monotonic() >= next_tick:
                is_told = is_told or self._tell_metrics(begin)
                self.on_tick()
                next_tick = clock.monotonic() + _TICK_S
            clock.wait(0.05, nobody)
        self.on_tick()
        return code

    def _tell_metrics(self, begin: int) -> bool:
        """Whether the runner whose log begins there has said where its metrics are."""
        with self.log.open("rb") as log:
            log.seek(begin)
            said = _METRICS.search(log.read())
        if said is not None and self.on_metrics is not None:
            self.on_metrics(said[1].decode())
        return said is not None


def carry_out(
    operator: Operator, *, at_gate: Callable[[str], None], kills: Iterable[Kill] = ()
) -> tuple[Kill, ...]:
    """Run the plan to its end, approving every gate after ``at_gate(stage)``; killed and run again for each of ``kills``.

    Returns the kills.  Raises :class:`DemoFailed` where a command ends otherwise than it should, and where a kill did
    not take place because its stage had ended before.
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
    """One kill in each stage, somewhere in the statements that a stage of so many steps surely has."""
    return tuple(
        Kill(stage=stage, statements=dice.randint(1, _STATEMENTS_A_STEP * count))
        for stage, count in steps.items()
    )


def read_gate(dsn: str) -> str:
    """The stage at whose gate the run waits, empty where there is none."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return read_closed_gate(connection)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a runner that still runs, gently first."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
