"""What an operator sees of a run: on a terminal a live table with lines above it, elsewhere plain lines."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console

from online_migrate.cli.output import json_line, say
from online_migrate.observe.terminal.live_view import LiveView
from online_migrate.printable import printable_lines


class Screen:
    """The only place that prints during a run, so that the table never overwrites a line."""

    def __init__(self, *, is_live: bool, is_json: bool = False) -> None:
        self._is_json = is_json
        self.console = Console(stderr=True)
        self.view = LiveView(self.console) if is_live and self.console.is_terminal else None
        self._last: list[str] = []

    def say(self, text: str) -> None:
        """Print a line above the table; it stays."""
        if self.view is None:
            say(self._line(text), err=True)
        else:
            self.console.print(printable_lines(text), soft_wrap=True, markup=False, highlight=False)

    def keep(self, text: str) -> None:
        """Print what must not be missed: now, and again below the last table."""
        self.say(text)
        if self.view is not None:
            self._last.append(text)

    def notice(self, text: str) -> None:
        """Print from a signal handler: in the table's header until the end; without a table, unbuffered to
        stderr.
        """
        if self.view is not None:
            self.view.notice = text
            return
        with suppress(OSError):
            os.write(2, f"{self._line(printable_lines(text))}\n".encode())

    def close(self) -> None:
        """Keep the last table on the screen, and print below it what must not be missed."""
        if self.view is not None:
            self.view.close()
        last, self._last = self._last, []
        self.say_all(last)

    def say_all(self, lines: Iterable[str]) -> None:
        """Print each on its own line."""
        for line in lines:
            say(self._line(line), err=True)

    def _line(self, text: str) -> str:
        return json_line("note", "info", message=text.strip()) if self._is_json else text
