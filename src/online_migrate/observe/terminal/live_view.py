"""A run for people: a live table of tables × stages on a terminal, single lines if there is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TextIO, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.table import Table
from rich.text import Text

from online_migrate.clock import Clock, SystemClock
from online_migrate.figures import count_text, seconds_text, share_text, short_count_text
from online_migrate.observe.snapshot.views import Snapshot, StageView, StepView, where
from online_migrate.observe.terminal.rows import (
    WORDS,
    Row,
    Waits,
    fitting,
    left_out,
    most_urgent,
    rows_of,
    state_of,
    wait_of,
    waits_of,
)
from online_migrate.observe.terminal.status_line import passes_text, status_line
from online_migrate.observe.terminal.wait_lines import wait_lines, wait_word
from online_migrate.printable import printable_lines, printable_record

LINE_S: Final = 1.0
"""at most one plain line in this time"""

_MARKS: Final = {"pending": "·", "waiting": "⏸", "running": "▶", "done": "✓", "failed": "✗", "stopped": "⏸"}
_STYLES: Final = {
    "pending": "dim",
    "waiting": "yellow",
    "running": "bold cyan",
    "moving": "bold cyan",
    "passed": "cyan",
    "done": "green",
    "failed": "bold red",
    "stopped": "yellow",
}
_NAME_WIDTH: Final = 34
_BAR_WIDTH: Final = 10
_DETAIL_WIDTH: Final = 30
"""bar, share, rows, rate and time left of a running step"""
_DETAIL_MOST: Final = 44
"""of the column; a longer sentence is shown above the table"""
_SHORTER: Final = ((2, 100), (1, 100), (1, 3), (1, 2), (1, 1))
"""reasons of each kind of wait and lines of each reason; shorter until the tables have half of the screen"""
_SPARE: Final = 3
"""lines of the table's head, of the tables that are not shown, and of the cursor"""


def render(snapshot: Snapshot, notice: str = "") -> RenderableType:
    """The header and the table, sized for the console that draws them, with ``notice`` between them."""
    return _Picture(snapshot, notice)


class _Picture:
    def __init__(self, snapshot: Snapshot, notice: str) -> None:
        self._snapshot = printable_record(snapshot)
        self._notice = [Text(printable_lines(notice), style="bold yellow")] if notice else []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        snapshot, width = self._snapshot, options.max_width
        height = (options.height or console.height) if console.is_terminal else None
        head, lines = self._head(console, options, None if height is None else height // 2)
        rows = rows_of(snapshot)
        shown = rows if height is None else fitting(rows, height - lines - _SPARE)
        yield Group(*head, _table(snapshot, shown, width))
        if rest := left_out(rows, shown):
            yield _cut(Text(f"  {rest}", style="dim"), width)

    def _head(self, console: Console, options: ConsoleOptions, most: int | None) -> tuple[list[Text], int]:
        """The lines above the table, ``most`` of them if possible, and how many they are."""
        snapshot, width = self._snapshot, options.max_width
        top = [_header(snapshot), _legend(snapshot, width), *self._notice]
        failed = [_marked("failed", line) for line in _failures(snapshot)]
        head, lines = top, 0
        for reasons, cut in _SHORTER:
            waits = [_marked("waiting", line) for line in wait_lines(snapshot, reasons)]
            head = [*top, *(_cut(text, cut * width) for text in (*failed, *waits))]
            lines = len(console.render_lines(Group(*head), options, pad=False))
            if most is None or lines <= most:
                break
        return head, lines


def _cut(text: Text, cells: int) -> Text:
    text.truncate(cells, overflow="ellipsis")
    return text


def _header(snapshot: Snapshot) -> Text:
    done = sum(step.state == "done" for step in snapshot.steps)
    state = snapshot.state if snapshot.is_live or snapshot.state != "running" else "no runner"
    style = _STYLES.get(state, "bold yellow")
    passes = f"  {text}" if (text := passes_text(snapshot)) else ""
    return Text.assemble(
        (snapshot.plan, "bold"), "  ", (state, style),
        f"  {done} of {len(snapshot.steps)} steps{passes}  {seconds_text(snapshot.seconds)}",
    )  # fmt: skip


def _legend(snapshot: Snapshot, width: int) -> Text:
    """The number, name and state of each stage; a line is broken only between two stages."""
    legend, used = Text(), 0
    for number, stage in enumerate(snapshot.stages, start=1):
        part = Text(f"{number} {stage.stage} {_MARKS[stage.state]}", style=_STYLES[stage.state])
        is_broken = used + 2 + part.cell_len > width
        gap = "" if not used else "\n" if is_broken else "  "
        used = part.cell_len if is_broken or not used else used + 2 + part.cell_len
        legend.append(gap).append_text(part)
    return legend


def _failures(snapshot: Snapshot) -> Iterable[str]:
    """Why steps failed, if a cell has no room for it and the run does not say it."""
    for step in snapshot.steps:
        is_long = cell_len(step.reason) > _DETAIL_MOST - 2
        if step.state == "failed" and is_long and step.reason not in snapshot.reason:
            yield f"{where(step)}: {step.reason}"


def _marked(state: str, text: str) -> Text:
    return Text(f"{_MARKS[state]} {text}", style=_STYLES[state])


def _table(snapshot: Snapshot, rows: Sequence[Row], width: int) -> Table:
    waits = waits_of(snapshot)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    now = _now(snapshot)
    details = _DETAIL_WIDTH if now is not None else 0
    narrow = 3 * (len(snapshot.stages) - (now is not None))
    longest = max((cell_len(row.name) for row in rows), default=0)
    name_width = max(12, min(longest, _NAME_WIDTH, width - narrow - details - 2))
    most = max(details, min(width - narrow - name_width - 2, _DETAIL_MOST))
    table.add_column("", width=name_width, no_wrap=True, overflow="ellipsis")
    for number, stage in enumerate(snapshot.stages, start=1):
        is_now = stage is now
        table.add_column(
            f"{number} {stage.stage}" if is_now else str(number),
            header_style=_STYLES[stage.state],
            min_width=details if is_now else 2,
            max_width=most if is_now else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        cells = [
            _detail(steps, waits) if stage is now else _mark(steps)
            for stage, steps in zip(snapshot.stages, row.cells, strict=True)
        ]
        table.add_row(Text(row.name, style=_STYLES[row.state] if row.state != "done" else ""), *cells)
    return table


def _now(snapshot: Snapshot) -> StageView | None:
    """The stage that is shown with details: the one that is running, failed or waiting."""
    return next((s for s in snapshot.stages if s.state in {"running", "failed", "waiting"}), None)


def _mark(steps: Sequence[StepView]) -> Text:
    state = _state(steps)
    return Text(_MARKS[state], style=_STYLES[state]) if state else Text("")


def _state(steps: Sequence[StepView]) -> str:
    """The most urgent state of a cell's steps; empty if the stage has no step for the table."""
    states = {step.state for step in steps}
    if not states:
        return ""
    if len(states) == 1:
        return next(iter(states))
    return "failed" if "failed" in states else "running" if states & {"running", "done"} else "pending"


def _detail(steps: Sequence[StepView], waits: Waits) -> Text:
    """A running step: a bar with figures or one word; else the mark, with rows or steps."""
    busy = most_urgent(steps, waits)
    if busy is None:
        return _rest(steps)
    state = state_of(busy, waits)
    if state == "failed":
        return Text(f"{_MARKS['failed']} {busy.reason or busy.step}", style=_STYLES["failed"])
    wait = wait_of(busy, waits)
    word = wait_word(wait.kind) if wait is not None else WORDS["passed"] if state == "passed" else ""
    if busy.share_done is None:
        mark = _MARKS["waiting" if wait else "running"]
        text = f"{mark} {word or busy.step} {seconds_text(busy.seconds)}"
        return Text(text, style=_STYLES[state])
    figures = (word, _STYLES[state]) if word else _figures(busy)
    return Text.assemble(_bar(busy.share_done), f" {share_text(busy.share_done):>5} ", figures)


def _rest(steps: Sequence[StepView]) -> Text:
    """Steps none of which is running."""
    done = sum(s.state == "done" for s in steps)
    mark = _mark(steps)
    rows = sum(s.rows_done for s in steps)
    if rows:
        mark.append(f" {count_text(rows)} rows", style="dim")
    elif 0 < done < len(steps):
        mark.append(f" {done} of {len(steps)} steps", style="dim")
    return mark


def _bar(share: float) -> Text:
    full = int(share * _BAR_WIDTH)
    return Text.assemble(("━" * full, "cyan"), ("─" * (_BAR_WIDTH - full), "dim"))


def _figures(step: StepView) -> str:
    if step.rate is None:
        return f"{short_count_text(step.rows_done)} rows"
    return f"{short_count_text(step.rate)}/s {seconds_text(step.eta_s)}"


class LiveView:
    """Draws snapshots on ``console``: a table that is redrawn in place, or without a terminal one line per
    change.

    ``run`` without a terminal uses :class:`~.logs.LogSink`; the plain lines are for ``status --watch`` and
    the demo.
    """

    def __init__(self, console: Console, *, clock: Clock | None = None) -> None:
        self._console = console
        self._clock = clock or SystemClock()
        self._live: Live | None = None
        self._line = ""
        self._line_at = -LINE_S
        self._last: Snapshot | None = None
        self.notice = ""
        """a line in the header; may be set from a signal handler"""

    @property
    def stream(self) -> TextIO:
        """A stream whose lines are printed above the table while it is shown."""
        return cast("TextIO", FileProxy(self._console, self._console.file))

    def update(self, snapshot: Snapshot) -> None:
        """Draw ``snapshot``."""
        self._last = snapshot
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
                self._live.start()
            self._live.update(render(snapshot, self.notice), refresh=True)
        elif self._clock.monotonic() - self._line_at >= LINE_S:
            self._print_line(snapshot)

    def close(self) -> None:
        """Leave the last table on the screen; safe to call twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._last is not None and not self._console.is_terminal:
            self._print_line(self._last)

    def _print_line(self, snapshot: Snapshot) -> None:
        line = status_line(snapshot)
        if line != self._line:
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)
            self._line = line
            self._line_at = self._clock.monotonic()
