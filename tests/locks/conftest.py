from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.locks.beside import Site, site_on


@pytest.fixture
def site(database: str) -> Iterator[Site]:
    """A filled parent and child, and our two sessions."""
    with site_on(database) as site:
        yield site
