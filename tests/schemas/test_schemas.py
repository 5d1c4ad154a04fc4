"""Grown databases with everything that a real one has: check is honest about each, and what it lets
pass, runs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cases.trial import Trial
from tests.schemas.conftest import NAMES


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_check_is_honest_about_a_grown_database(grown: Callable[[str], Trial], name: str) -> None:
    """Check ends with 0 or 3 and never with 1; where it finds nothing that stops, the whole plan runs
    to its end.
    """
    trial = grown(name)
    check = trial.call("check")
    assert check.code in (0, 3), f"check: exit {check.code}\n{check.all[-3000:]}"
    if check.code == 3:
        assert "stop" in check.all
        return
    run = trial.call("run", "--approve", "swap")
    assert run.code == 0, f"check found nothing; run: exit {run.code}\n{run.all[-3000:]}"
    verify = trial.call("verify")
    assert verify.code == 0, verify.all[-3000:]
