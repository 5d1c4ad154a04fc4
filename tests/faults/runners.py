"""``online-migrate run`` in processes that share one start-up, so that thousands of them can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.runners", "online_migrate.cli"])
PLAN: Final = Path(__file__).parents[2] / "plans" / "multi_tenant.yaml"
SECRETS: Final = {"MASTER_BOT_TOKEN": "1:made-up"}
_PAUSE_AFTER_LOSS_S: Final = 0.01


def start_runner(*arguments: str, dsn: str, folder: Path, log: Path) -> BaseProcess:
    """Start the command in a process of its own; its output is appended to ``log``."""
    process = _CONTEXT.Process(target=_run, args=(("run", *arguments), dsn, folder, log), daemon=True)
    process.start()
    return process


def send(process: BaseProcess, number: signal.Signals) -> None:
    """Send a signal to a runner that may have ended; until :meth:`join` no other process gets its pid."""
    assert process.pid is not None
    os.kill(process.pid, number)


def _run(arguments: tuple[str, ...], dsn: str, folder: Path, log: Path) -> None:
    """In the child: as the command line does it."""
    from online_migrate.cli import main
    from online_migrate.journal import sessions

    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    os.chdir(folder)
    os.environ.update(SECRETS, ONLINE_MIGRATE_DSN=dsn)
    # A boundary is struck once, so each loss is another one: no pause is needed, however many come in a row.
    sessions.PAUSE_AFTER_LOSS_S = _PAUSE_AFTER_LOSS_S
    sessions.LOSSES = 10_000
    main(list(arguments), prog_name="online-migrate")
