"""A run whose terminal or pipe was closed continues, and ends as it would have ended."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tests.desk import Desk


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_the_exit_code_does_not_hang_on_who_reads(desk: Desk, kind: str) -> None:
    """A supervisor acts on 75 and 130; 1 or 120 would say that something broke."""
    ours, theirs = os.pipe()[::-1] if kind == "pipe" else pty.openpty()[::-1]
    command = [sys.executable, "-m", "online_migrate.cli", "run", "plan.yaml"]
    child = subprocess.Popen(
        command,
        cwd=desk.folder,
        env={**os.environ, **desk._environ},
        stdout=ours,
        stderr=ours,
        start_new_session=True,
    )
    os.close(ours)
    os.close(theirs)
    assert child.wait(timeout=100) == 75
    assert desk.ask("SELECT state FROM online_migrate.run") == "waiting"
