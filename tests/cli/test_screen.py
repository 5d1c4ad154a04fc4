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
