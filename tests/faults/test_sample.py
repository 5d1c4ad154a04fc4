"""A seeded sample of `make faults`: each kind of fault at some statement boundaries of one stage, one after
the other.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.faults.attempt import Attempt, Outcome
from tests.faults.kinds import KINDS
from tests.faults.site import Site

pytestmark = pytest.mark.timeout(900)  # some seconds each on a calm machine; a busy one may take its time

SEED: Final = 10
FAULTS: Final = 4
_STAGES: Final = ("columns", "backfill", "tables")
ON_SERVER: Final = {
    name: _STAGES[number % len(_STAGES)]
    for number, name in enumerate(k for k in KINDS if not KINDS[k].needs_disk)
}


def strike(site: Site, kind: str, stage: str, folder: Path) -> Outcome:
    """Boundaries of the second half of the stage: those of `check` come first, and change nothing."""
    dice = Random(f"{SEED} {kind} {stage}")
    boundaries = site.boundaries[stage]
    drawn = dice.sample(boundaries[len(boundaries) // 2 :], FAULTS)
    attempt = Attempt(
        site=site,
        kind=KINDS[kind],
        stage=stage,
        wanted=set(drawn),
        most=FAULTS,
        dice=dice,
        log=folder / "run.log",
    )
    outcome = attempt.run()
    assert outcome.is_equal, (outcome, attempt.struck, attempt.log.read_text()[-3000:])
    return outcome


@pytest.mark.parametrize(("kind", "stage"), ON_SERVER.items())
def test_the_end_is_the_same_whatever_strikes(site: Site, kind: str, stage: str, tmp_path: Path) -> None:
    """Schema, rows and journal are those of an undisturbed run, whatever was cut, killed, stopped or lost."""
    outcome = strike(site, kind, stage, tmp_path)
    assert outcome.struck
    assert outcome.exits["0"] >= 1


@pytest.mark.small_disk
def test_the_end_is_the_same_after_a_full_disk(site_on_small_disk: Site, tmp_path: Path) -> None:
    """A statement that finds no free block fails, the run keeps its state, and the next one goes on."""
    outcome = strike(site_on_small_disk, "disk-full", "columns", tmp_path)
    assert outcome.struck
