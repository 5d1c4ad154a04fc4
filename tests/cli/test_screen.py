"""On a terminal nothing that matters is wiped away by the live table."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
from pathlib import Path

import click

from online_migrate.cli.common import fit
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
    assert "(shown only now; its SHA-256 alone is kept): " in text
    after_the_table = text.rpartition(ERASE_LINE)[2]
    token = text.rpartition("alone is kept): ")[2].split()[0]
    assert token in after_the_table
    assert len(token) > 40
    assert not list(desk.folder.glob("*.secret"))


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
    """Lines after the first stand below it; a word that fits nowhere, as a path, stays whole; so does all in a pipe."""
    assert fit("one two three\nfour", 4, 24) == "one two three\n    four"
    assert (
        fit("a /very/long/path/that/fits/nowhere b", 2, 22) == "a\n  /very/long/path/that/fits/nowhere\n  b"
    )
    assert fit("one two three", 4, None) == "one two three"
