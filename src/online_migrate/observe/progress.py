"""A run for people: a live table of tables × stages on a terminal, a line at a time where there is none."""

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
from online_migrate.observe.views import Snapshot, StageView, StepView, where
from online_migrate.observe.words import count_text, seconds_text, share_text, short_count

LINE_S: Final = 1.0
"""at most one plain line in this time"""

_MARKS: Final = {"pending": "·", "waiting": "⏸", "running": "▶", "done": "✓", "failed": "✗", "stopped": "⏸"}
_STYLES: Final = {
    "pending": "dim",
    "waiting": "yellow",
    "running": "bold cyan",
    "done": "green",
    "failed": "bold red",
    "stopped": "yellow",
}
_NO_TABLE: Final = "(no table)"
_NAME_WIDTH: Final = 34
_BAR_WIDTH: Final = 10
_DETAIL_WIDTH: Final = 30
"""bar, share, rows, rate and time left of a step that runs"""
_ROOM: Final = 7
"""lines of the header, the table's head, and the line below"""


def render(snapshot: Snapshot, notice: str = "") -> RenderableType:
    """The header and the table, made to fit the console that draws them; ``notice`` stands between."""
    return _Picture(snapshot, notice)


class _Picture:
    def __init__(self, snapshot: Snapshot, notice: str) -> None:
        self._snapshot = snapshot
        self._notice = [Text(notice, style="bold yellow")] if notice else []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        snapshot = self._snapshot
        height = (options.height or console.height) if console.is_terminal else None
        rows = _rows(snapshot)
        shown = rows if height is None else _fitting(rows, height - _ROOM)
        table = _table(snapshot, shown, options.max_width)
        head = [_header(snapshot), _legend(snapshot, options.max_width), *self._notice, *_why(snapshot)]
        yield Group(*head, table, *_left_out(rows, shown))


class _Row:
    """One table over all stages."""

    def __init__(self, name: str, cells: Sequence[tuple[StepView, ...]]) -> None:
        self.name = name
        self.cells = cells
        states = {step.state for steps in cells for step in steps}
        self.state = (
            "failed" if "failed" in states
            else "done" if states == {"done"}
            else "running" if "running" in states
            else "pending"
        )  # fmt: skip

    @property
    def share(self) -> float:
        """Of its steps, those that are done."""
        steps = [step for cell in self.cells for step in cell]
        return sum(step.state == "done" for step in steps) / len(steps)


def _rows(snapshot: Snapshot) -> list[_Row]:
    names = dict.fromkeys(step.table for step in snapshot.steps)
    ordered = [n for n in names if n] + [n for n in names if not n]
    return [
        _Row(n or _NO_TABLE, [tuple(s for s in stage.steps if s.table == n) for stage in snapshot.stages])
        for n in ordered
    ]


def _fitting(rows: list[_Row], room: int) -> list[_Row]:
    """Where not all fit: what runs or failed first, then what is least far, in the plan's order."""
    if len(rows) <= room:
        return rows
    rank = {"failed": 0, "running": 1, "pending": 2, "done": 3}
    best = sorted(rows, key=lambda row: (rank[row.state], row.share if row.state == "pending" else 0))
    kept = {id(row) for row in best[: max(1, room)]}
    return [row for row in rows if id(row) in kept]


def _left_out(rows: list[_Row], shown: list[_Row]) -> Iterable[Text]:
    rest = [row for row in rows if row not in shown]
    if rest:
        done = sum(row.state == "done" for row in rest)
        yield Text(f"  and {len(rest)} more tables: {done} done, {len(rest) - done} to come", style="dim")


def _header(snapshot: Snapshot) -> Text:
    done = sum(step.state == "done" for step in snapshot.steps)
    state = snapshot.state if snapshot.is_live or snapshot.state != "running" else "no runner"
    style = _STYLES.get(state, "bold yellow")
    return Text.assemble(
        (snapshot.plan, "bold"), "  ", (state, style),
        f"  {done} of {len(snapshot.steps)} steps  {seconds_text(snapshot.seconds)}",
    )  # fmt: skip


def _legend(snapshot: Snapshot, width: int) -> Text:
    """Which number is which stage, and how far each is; a line is broken between two stages only."""
    legend, used = Text(), 0
    for number, stage in enumerate(snapshot.stages, start=1):
        part = Text(f"{number} {stage.stage} {_MARKS[stage.state]}", style=_STYLES[stage.state])
        is_broken = used + 2 + part.cell_len > width
        gap = "" if not used else "\n" if is_broken else "  "
        used = part.cell_len if is_broken or not used else used + 2 + part.cell_len
        legend.append(gap).append_text(part)
    return legend


def _why(snapshot: Snapshot) -> Iterable[Text]:
    """Why it waits: the run's reason, a gate, or what is waited for now, and by whom."""
    if snapshot.reason and not snapshot.waits:
        yield _waiting(snapshot.reason)
    for stage in snapshot.stages:
        if stage.state == "waiting" and stage.reason not in snapshot.reason:
            yield _waiting(stage.reason, f"gate of {stage.stage}")
    for reason in dict.fromkeys(wait.reason for wait in snapshot.waits):
        waits = [wait for wait in snapshot.waits if wait.reason == reason]
        seconds = (snapshot.read_at - min(wait.since for wait in waits)).total_seconds()
        yield _waiting(reason, f"{' and '.join(map(where, waits))}, for {seconds_text(seconds)}")


def _waiting(reason: str, place: str = "") -> Text:
    return Text(f"{_MARKS['waiting']} {f'{place}: ' if place else ''}{reason}", style="yellow")


def _table(snapshot: Snapshot, rows: Sequence[_Row], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    now = _now(snapshot)
    details = _DETAIL_WIDTH if now is not None else 0
    narrow = 3 * (len(snapshot.stages) - (now is not None))
    longest = max((cell_len(row.name) for row in rows), default=0)
    name_width = max(12, min(longest, _NAME_WIDTH, width - narrow - details - 2))
    table.add_column("", width=name_width, no_wrap=True, overflow="ellipsis")
    for number, stage in enumerate(snapshot.stages, start=1):
        is_now = stage is now
        table.add_column(
            f"{number} {stage.stage}" if is_now else str(number),
            header_style=_STYLES[stage.state],
            min_width=details if is_now else 2,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        cells = [
            _detail(steps) if stage is now else _mark(steps)
            for stage, steps in zip(snapshot.stages, row.cells, strict=True)
        ]
        table.add_row(Text(row.name, style=_STYLES[row.state] if row.state != "done" else ""), *cells)
    return table


def _now(snapshot: Snapshot) -> StageView | None:
    """The stage that gets room for details: the one that runs, failed or waits."""
    return next((s for s in snapshot.stages if s.state in {"running", "failed", "waiting"}), None)


def _mark(steps: Sequence[StepView]) -> Text:
    state = _state(steps)
    return Text(_MARKS[state], style=_STYLES[state]) if state else Text("")


def _state(steps: Sequence[StepView]) -> str:
    """Of a cell: the most urgent of its steps' states; empty where the stage has nothing for the table."""
    states = {step.state for step in steps}
    if not states:
        return ""
    if len(states) == 1:
        return next(iter(states))
    return "failed" if "failed" in states else "running" if states & {"running", "done"} else "pending"


def _detail(steps: Sequence[StepView]) -> Text:
    """A running step in words and a bar; else the mark, with what there is to say."""
    busy = next((s for s in steps if s.state in {"running", "failed"}), None)
    if busy is None:
        done = sum(s.state == "done" for s in steps)
        mark = _mark(steps)
        rows = sum(s.rows_done for s in steps)
        if rows:
            mark.append(f" {count_text(rows)} rows", style="dim")
        elif 0 < done < len(steps):
            mark.append(f" {done} of {len(steps)} steps", style="dim")
        return mark
    if busy.state == "failed":
        return Text(f"{_MARKS['failed']} {busy.reason or busy.step}", style=_STYLES["failed"])
    if busy.share_done is None:
        return Text(f"{_MARKS['running']} {busy.step} {seconds_text(busy.seconds)}", style=_STYLES["running"])
    return Text.assemble(_bar(busy.share_done), f" {share_text(busy.share_done):>5} ", _figures(busy))


def _bar(share: float) -> Text:
    full = int(share * _BAR_WIDTH)
    return Text.assemble(("━" * full, "cyan"), ("─" * (_BAR_WIDTH - full), "dim"))


def _figures(step: StepView) -> str:
    if step.rate is None:
        return step.reason or f"{short_count(step.rows_done)} rows"
    return f"{short_count(step.rate)}/s {seconds_text(step.eta_s)}"


def status_line(snapshot: Snapshot) -> str:
    """The run in one line, for where there is no terminal."""
    done = sum(step.state == "done" for step in snapshot.steps)
    state = snapshot.state if snapshot.is_live or snapshot.state != "running" else "no runner"
    parts = [f"{snapshot.plan}: {state}", f"{done} of {len(snapshot.steps)} steps"]
    stage = snapshot.stage
    if stage is not None:
        parts.append(f"stage {stage.stage} ({snapshot.stages.index(stage) + 1} of {len(snapshot.stages)})")
    parts += [_step_words(step) for step in snapshot.steps if step.state in {"running", "failed"}]
    parts += [f"waits: {line.plain.split(' ', 1)[1]}" for line in _why(snapshot)]
    return "; ".join(parts)


def _step_words(step: StepView) -> str:
    words = " ".join(p for p in (step.step, step.table) if p)
    if step.state == "failed":
        return f"{words} failed: {step.reason}"
    if step.share_done is None:
        return words
    expected = "" if step.rows_expected is None else f" of about {count_text(step.rows_expected)}"
    rate = "" if step.rate is None else f", {count_text(step.rate)} rows/s"
    return (
        f"{words} {share_text(step.share_done)}, {count_text(step.rows_done)}{expected} rows{rate},"
        f" time left {seconds_text(step.eta_s)}"
    )


class LiveView:
    """Draws snapshots on ``console``: a table that stays in place on a terminal, else a line when something changed.

    ``run`` without a terminal uses :class:`~.logs.LogSink` instead; plain lines are for ``status --watch`` and the demo.
    """

    def __init__(self, console: Console, *, clock: Clock | None = None) -> None:
        self._console = console
        self._clock = clock or SystemClock()
        self._live: Live | None = None
        self._line = ""
        self._line_at = -LINE_S
        self._last: Snapshot | None = None
        self.notice = ""
        """a line in the header from now on; may be set from a signal handler"""

    @property
    def stream(self) -> TextIO:
        """Where others may print while the table is there: their lines go above it."""
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
        """Leave the last picture standing; safe to call twice."""
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
