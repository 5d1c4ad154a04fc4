"""Asynchronous failover: the promoted standby misses the last steps that the runner has seen done, journal
included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.desk import Desk, small_text
from tests.faults.attempt import Attempt, Running
from tests.faults.kinds import KINDS, Kind
from tests.faults.proxy import Cut, Request
from tests.faults.site import Site, start_site

pytestmark = pytest.mark.timeout(900)  # some seconds each on a calm machine; a busy one may take its time

STAGES: Final = ("tables", "columns", "backfill")
LOST_REQUESTS: Final = 120
"""two steps and more"""
TABLES: Final = ("transactions", "users", "promocodes", "promo_groups", "tickets", "subscriptions")


def lose(attempt: Attempt, _running: Running, _request: Request) -> Cut:
    attempt.site.detach_standby()
    attempt.fail_over_after(LOST_REQUESTS)
    return Cut.NOTHING


LOSSY: Final = Kind(
    name="lossy-failover",
    what=KINDS["lossy-failover"].what,
    strike=lose,
    needs_standby=True,
    is_synchronous=False,
)


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "two workers"])
def small_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The plan over six tables up to its backfill, whose tables are filled one after the other, or by two
    workers.
    """
    pace = f"{{batch_target: 50ms, duty: 50%, workers: {request.param}}}"
    text = small_text(tables=TABLES, pace=pace)
    plan = Desk(folder=tmp_path_factory.mktemp("plan"), dsn="").write(text)
    with start_site(stages=STAGES, plan=plan) as site:
        yield site


@pytest.mark.parametrize("stage", ["columns", "backfill"])
@pytest.mark.parametrize("share", [0.6, 0.8])
def test_no_step_is_lost_with_the_last_commits(
    small_site: Site, stage: str, share: float, tmp_path: Path
) -> None:
    """The walk restarts at the first step that is open in the promoted journal: every row has its value in
    the end.
    """
    boundaries = small_site.boundaries[stage]
    first = int(len(boundaries) * share)
    attempt = Attempt(
        site=small_site,
        kind=LOSSY,
        stage=stage,
        wanted=set(
            boundaries[first:]
        ),  # the first of them that is reached: two workers take turns as they like
        most=1,
        dice=Random(stage),
        log=tmp_path / "run.log",
    )
    outcome = attempt.run()
    assert outcome.is_equal, (outcome, attempt.struck, attempt.log.read_text()[-3000:])
    assert len(outcome.struck) == 1
