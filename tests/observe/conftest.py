"""A real browser for the tests of the page, Debian's Chromium, driven by playwright; and a night that was
lived through.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.observe.night import Night, lived_through

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = ["--disable-gpu", "--no-first-run", "--disable-background-networking"]
"""a profile of its own is playwright's doing"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless, without a sandbox: root cannot have one, and it sees nothing but our own page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, chromium_sandbox=False, args=FLAGS
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """Once for all who look at it; it takes half a minute."""
    with lived_through(tmp_path_factory.mktemp("night")) as night:
        yield night
