"""On a terminal nothing that matters is wiped away by the live table."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from pathlib import Path

import click
import pytest

from online_migrate.cli import status
from online_migrate.cli.common import fit
from online_migrate.clock import Signal
from tests.desk import TOKEN, Desk

ROWS, COLUMNS = 30, 100
ERASE_LINE = "\x1b[2K"


def run_in_a_terminal(arguments: list[str], environment: dict[str, str], folder: Path) -> str:
    """Everything that the command writes to a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(arguments[0], arguments, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    written = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        written += part
    os.close(terminal)
    os.waitpid(pid, 0)
    return written.decode(errors="replace")


def test_the_token_stands_below_the_last_table(desk: Desk) -> None:
    """The token is shown once only: it must still be readable when the run is over, not only for 0.2 s."""
    environment = os.environ | {
        "ONLINE_MIGRATE_DSN": desk.dsn,
        "MASTER_BOT_TOKEN": TOKEN,
        "TERM": "xterm",
        "COLUMNS": str(COLUMNS),
        "LINES": str(ROWS),
    }
    command = [sys.executable, "-m", "online_migrate.cli", "run", "plan.yaml", "--through", "tables"]
    text = run_in_a_terminal(command, environment, desk.folder)
    assert "(shown once; the database keeps only its SHA-256): " in text
    after_the_table = text.rpartition(ERASE_LINE)[2]
    token = text.rpartition("only its SHA-256): ")[2].split()[0]
    assert token in after_the_table
    assert len(token) > 40
    assert not list(desk.folder.rglob("*.secret"))


def test_findings_are_broken_between_words(desk: Desk) -> None:
    """What check has to say is read on a terminal: no line is wider than it, and no word is cut in two."""
    environment = os.environ | {"ONLINE_MIGRATE_DSN": desk.dsn, "MASTER_BOT_TOKEN": TOKEN, "COLUMNS": "60"}
    command = [sys.executable, "-m", "online_migrate.cli", "check", "plan.yaml"]
    lines = [
        click.unstyle(line) for line in run_in_a_terminal(command, environment, desk.folder).splitlines()
    ]
    assert any(line.startswith("        →") for line in lines)
    assert [line for line in lines[:-1] if len(line) > 60 and " " in line.strip()] == []
    whole = desk.call("check").out
    assert " ".join(" ".join(lines).split()) == " ".join(whole.split())


def test_a_text_is_fitted_to_its_place() -> None:
    """Lines after the first are indented below it; a word too long for a line, such as a path, is not cut; a
    pipe gets one line.
    """
    assert fit("one two three\nfour", 4, 24) == "one two three\n    four"
    assert (
        fit("a /very/long/path/that/fits/nowhere b", 2, 22) == "a\n  /very/long/path/that/fits/nowhere\n  b"
    )
    assert fit("one two three", 4, None) == "one two three"


class _ClockOfOneRun:
    """While the first look at the run is waited for it begins; at the second the watcher has seen enough."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waits = 0

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, signal: Signal) -> bool:
        del seconds, signal
        self._waits += 1
        if self._waits == 2:
            assert self._desk.call("run", "--through", "tables").code == 0
        return self._waits == 3


def test_who_watches_before_the_run_begins_is_told_so_and_sees_it_begin(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second terminal may be opened first."""
    monkeypatch.setattr(status, "CLOCK", _ClockOfOneRun(desk))
    said = desk.call("status", "--watch")
    assert said.code == 0, said.err
    first, *others = said.out.splitlines()
    assert first.startswith("there is no run of plan multi_tenant in database om_test_")
    assert first.endswith("; waiting for it to start")
    assert [line for line in others if "waiting for it" in line] == []
    assert others[-1].startswith("multi_tenant: stopped; 2 of ")
