"""Events as log lines: sentences for people, JSON for machines.

Without a terminal, ``run`` shows its progress in the console format; on a terminal the lines are printed
above the table of :class:`~.live_view.LiveView`.  Nothing is configured globally.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import Any, Final, Literal, TextIO

import structlog

from online_migrate.clock import Clock, SystemClock
from online_migrate.events import (
    BatchDone,
    BlockersSeen,
    CheckFound,
    Event,
    GateWaiting,
    LateRows,
    LockAttemptFailed,
    LongStatement,
    Note,
    Reading,
    Reconnected,
    Retried,
    RunEnded,
    StatementExecuted,
    StepFailed,
    StepStarted,
    Throughput,
)
from online_migrate.observe.words import describe, place_text
from online_migrate.printable import printable, printable_lines

Format = Literal["console", "json"]
FORMATS: Final[tuple[Format, ...]] = ("console", "json")

SAMPLE_S: Final = 10.0
"""at most one line in this time for each step, table and kind of frequent event"""
_SAMPLED: Final = (BatchDone, LongStatement)
_DEBUG: Final = (CheckFound, Reading, StatementExecuted, Throughput)
_WARNING: Final = (LockAttemptFailed, Retried, LateRows, GateWaiting, BlockersSeen, Reconnected)
_STYLES: Final = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[1;31m"}
_INDENT: Final = " " * 10
"""of a sentence's further lines: as wide as the time"""
_PLAIN: Final = "\x1b[0m"
_WIDTH: Final = 56
"""columns for the place in a console line, before the sentence; a longer place moves the sentence to the
right"""

Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]


class LogSink:
    """Writes one line per event.  Frequent events are sampled at level info; level debug has all of them.

    ``level`` is debug, info, warning or error.  If the stream is closed or full, lines are lost; the run
    continues.
    """

    def __init__(
        self,
        *,
        plan: str,
        fmt: Format = "console",
        stream: TextIO | None = None,
        level: str = "info",
        colour: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._logger = _make_logger(fmt, stream or sys.stderr, level, colour=colour)
        self._common: dict[str, Any] = {"plan": plan}
        self._is_console = fmt == "console"
        self._clock = clock or SystemClock()
        self._sampled_at: dict[tuple[object, ...], float] = {}

    def emit(self, event: Event) -> None:
        """Write a line; never raises."""
        try:
            self._write(event)
        except (OSError, ValueError):  # a closed pipe or file: there is no reader any more
            return

    def _write(self, event: Event) -> None:
        fields = event.fields()
        if "run_id" in fields:
            self._common["run"] = fields.pop("run_id")
        if isinstance(event, StepStarted):  # a step that ends within seconds needs no line on its progress
            now = self._clock.monotonic()
            for kind in _SAMPLED:
                self._sampled_at[_place(kind, event)] = now
        log = getattr(self._logger, self._level(event))
        log(event.name, **{**self._common, **fields})

    def _level(self, event: Event) -> str:
        if isinstance(event, StepFailed) or (isinstance(event, RunEnded) and event.outcome == "failed"):
            return "error"
        if isinstance(event, _DEBUG):
            return "debug"
        if isinstance(event, Note) and event.is_warning:
            return "warning"
        if isinstance(event, _SAMPLED):
            return "info" if self._is_due(event) else "debug"
        return "warning" if isinstance(event, _WARNING) else "info"

    def _is_due(self, event: Event) -> bool:
        key = _place(type(event), event)
        now = self._clock.monotonic()
        if now - self._sampled_at.get(key, -SAMPLE_S) < SAMPLE_S:
            return False
        self._sampled_at[key] = now
        return True


def _place(kind: type[Event], event: Event) -> tuple[object, ...]:
    return (kind, event.stage, event.step, event.table)


def _make_logger(fmt: Format, stream: TextIO, level: str, *, colour: bool) -> Any:
    processors: list[Processor] = [structlog.processors.add_log_level]
    if fmt == "json":
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        processors += [structlog.processors.JSONRenderer(ensure_ascii=False), _printable]
    else:
        processors.append(_Console(colour=colour))
    return structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        context_class=dict,
        cache_logger_on_first_use=False,
    )


def _printable(_logger: Any, _method: str, line: Any) -> str:
    return printable(line)


class _Console:
    """``12:00:01  backfill / backfill bot_id / users   45 %, 45,000 rows …``"""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: Any, _method: str, line: MutableMapping[str, Any]) -> str:
        place = printable(place_text(*(str(line.pop(key, "")) for key in ("stage", "step", "table"))))
        event, level = str(line.pop("event")), str(line.pop("level"))
        sentence = printable_lines(describe(event, line), indent=_INDENT)
        mark = {"warning": "! ", "error": "✗ "}.get(level, "")
        time = datetime.now().astimezone().strftime("%H:%M:%S")
        text = f"{time}  {place:<{_WIDTH}}  {mark}{sentence}" if place else f"{time}  {mark}{sentence}"
        return f"{_STYLES[level]}{text}{_PLAIN}" if self._colour and level in _STYLES else text
