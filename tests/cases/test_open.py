"""The list of open cases: each name in it is a case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cases.conftest import name_of
from tests.cases.open import OPEN

HERE = Path(__file__).parent


def test_every_open_case_is_a_case() -> None:
    """A name that no test has hides nothing, but misleads: it is not in the list."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(HERE)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parents[1]).stdout
    names = {name_of(line.partition("::")[2]) for line in listed.splitlines() if "::" in line}
    assert names >= OPEN, sorted(OPEN - names)
