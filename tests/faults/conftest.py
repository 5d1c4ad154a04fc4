"""One site for all kinds but a full disk: the plan up to its backfill, run once undisturbed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.site import Site, start_site


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    """The first three stages, two thirds of the statements of which are of every other stage, too."""
    with start_site(stages=("tables", "columns", "backfill")) as site:
        yield site


@pytest.fixture(scope="package")
def site_on_small_disk() -> Iterator[Site]:
    """The first two stages, in a tablespace on a disk of a fixed size."""
    with start_site(stages=("tables", "columns"), with_disk=True) as site:
        yield site
