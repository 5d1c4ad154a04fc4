"""Looking at the page as an operator does, and at what a browser has to complain of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

WIDE = (1280, 900)
NARROW = (390, 844)


@dataclass(slots=True)
class Look:
    """An open page, what it said on the console, and what it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def figure(self, name: str) -> str:
        """One of the large figures, without its unit."""
        tile = self.page.locator("#figures > div", has=self.page.locator("dt", has_text=name))
        return tile.locator("dd > span").inner_text()

    def wait_for(self, condition: str, seconds: float = 20) -> None:
        """Until that expression is true in the page; not playwright's own wait, which our policy forbids: it
        evals.
        """
        for _ in range(int(seconds * 10)):
            if self.ask(condition):
                return
            self.page.wait_for_timeout(100)
        pytest.fail(f"never true: {condition}; shown: {self.text('body')[:1_500]}; said: {self.complaints}")

    def ask(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    @property
    def is_cut_off(self) -> bool:
        """Whether the page is wider than the screen."""
        return bool(self.ask("document.documentElement.scrollWidth > window.innerWidth"))

    @property
    def places(self) -> set[str]:
        """Where it got something from."""
        return {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in self.asked}


@contextmanager
def looking(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = WIDE,
    scheme: Literal["light", "dark"] = "light",
) -> Iterator[Look]:
    """Open ``url`` in a new profile; complaints are the console's errors and
    warnings, and uncaught errors.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, timezone_id="Europe/Berlin"
    )
    page = context.new_page()
    look = Look(page)
    page.on(
        "console",
        lambda message: (
            look.complaints.append(message.text) if message.type in {"error", "warning"} else None
        ),
    )
    page.on("pageerror", lambda error: look.complaints.append(str(error)))
    page.on("request", lambda request: look.asked.append(request.url))
    page.goto(url)
    yield look
    context.close()
