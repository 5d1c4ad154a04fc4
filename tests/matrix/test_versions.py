"""The oldest and the newest supported server: the whole plan, and part of the operations' harness."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.faults.site import STAGES, start_site

pytestmark = [pytest.mark.npm_servers, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).parents[2]
VERSIONS: Final = (14, 18)
HARNESS: Final = "tests/operations/test_harness.py::test_absent_becomes_done_and_stays"


def bin_dir_of(version: int) -> Path:
    return ROOT / ".venv" / "matrix" / "node_modules" / f"postgresql-{version}" / "native" / "bin"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_whole_plan_runs(version: int) -> None:
    """Stage by stage to its end, with every step done in the journal."""
    with start_site(bin_dir=bin_dir_of(version)) as site:
        assert site.primary.version.startswith(f"{version}.")
        states = site.ends[STAGES[-1]].states
    assert len(states) == 313 + len(STAGES)
    assert {state for *_, state in states} == {"done"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_operation_keeps_its_contract(version: int) -> None:
    """Absent, executed, done, executed again without a difference, verified: each case of the harness."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HARNESS]
    environ = {**os.environ, "PG_BIN": str(bin_dir_of(version))}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
