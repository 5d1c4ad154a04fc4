"""What a command writes to stderr: sentences for people or, with ``--log-format json``, one object a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import click

from online_migrate.printable import printable_lines

_JSON: Final = "online_migrate.json_log"


def note_format(ctx: click.Context, arguments: Sequence[str]) -> None:
    """Keep whether the command line asks for a JSON log: errors in that command line are objects, too."""
    ctx.meta[_JSON] = "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)


def is_json() -> bool:
    """Is each line of stderr to be an object?  Asked on the thread of the command."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_JSON))


def json_line(event: str, level: str, **fields: Any) -> str:
    """A line with the keys that the log's lines have."""
    line = {k: v for k, v in fields.items() if v not in ("", None, ())}
    line |= {"event": event, "level": level, "timestamp": datetime.now(UTC).isoformat()}
    return json.dumps(line, ensure_ascii=False)


def say(text: str, *, err: bool = False, colour: str | None = None, mark: str = "") -> None:
    """Print ``mark`` and ``text``, with control characters written out; ``colour`` is the mark's, or the
    text's.

    A closed terminal or pipe is ignored, so that it changes neither the run nor its exit code.
    After an error the stream is redirected to /dev/null, so that flushing its buffer at exit does not fail.
    """
    shown = printable_lines(text)
    if colour is not None:
        shown = f"{click.style(mark, fg=colour)}{shown}" if mark else click.style(shown, fg=colour)
    try:
        click.echo(shown if colour is not None else f"{mark}{shown}", err=err)
    except OSError:
        stream = sys.stderr if err else sys.stdout
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say_note(text: str, *, level: str = "info") -> None:
    """Print a sentence to stderr; in a JSON log it is an object."""
    say(json_line("note", level, message=text) if is_json() else text, err=True)
