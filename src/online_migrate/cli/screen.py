"""What a person sees of a run: the live table with lines above it on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import click
from rich.console import Console

from online_migrate.observe.terminal.live_view import LiveView


class Screen:
    """The one place that prints while a run is under way, so that the table never wipes a line away."""

    def __init__(self, *, is_live: bool) -> None:
        self.console = Console(stderr=True)
        self.view = LiveView(self.console) if is_live and self.console.is_terminal else None
        self._last: list[str] = []

    def say(self, text: str) -> None:
        """Above the table, for good."""
        if self.view is None:
            click.echo(text, err=True)
        else:
            self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def keep(self, text: str) -> None:
        """Said now, and once more when the table is gone: what must not be missed."""
        self.say(text)
        if self.view is not None:
            self._last.append(text)

    def notice(self, text: str) -> None:
        """From within a signal handler: in the table's header until the end; without one, past Python's buffers."""
        if self.view is not None:
            self.view.notice = text
            return
        with suppress(OSError):
            os.write(2, f"{text}\n".encode())

    def close(self) -> None:
        """Leave the last picture standing, and below it what must not be missed."""
        if self.view is not None:
            self.view.close()
        last, self._last = self._last, []
        self.say_all(last)

    def say_all(self, lines: Iterable[str]) -> None:
        """Each on a line of its own."""
        for line in lines:
            click.echo(line, err=True)
