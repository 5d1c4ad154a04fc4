"""Events as log lines."""

from __future__ import annotations

import io
import json
from typing import Any

import structlog

from online_migrate import events as e
from online_migrate.clock import Signal
from online_migrate.observe.terminal.logs import FORMATS, LogSink
from tests.observe.made_runs import batch, whole_run


class FixedClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float, signal: Signal) -> bool:
        raise NotImplementedError


def lines(fmt: Any = "console", level: str = "info", events: list[e.Event] | None = None) -> list[str]:
    stream = io.StringIO()
    sink = LogSink(plan="shop", fmt=fmt, stream=stream, level=level)
    for event in whole_run() if events is None else events:
        sink.emit(event)
    return stream.getvalue().splitlines()


def test_json_lines_carry_the_one_vocabulary() -> None:
    """A machine finds the event's name and facts as logs, metrics and journal all have them, and always
    where.
    """
    shown = [json.loads(line) for line in lines("json", "debug")]
    for line, event in zip(shown, whole_run(), strict=True):
        assert line["event"] == event.name
        facts = {k: v for k, v in event.fields().items() if k != "run_id"}
        assert json.loads(json.dumps(facts)).items() <= line.items()
        assert {"timestamp", "level", "plan", "run"} <= line.keys()
        assert (line["plan"], line["run"]) == ("shop", 7)


def test_console_lines_are_sentences_with_their_place() -> None:
    """A person reads when, where and what, not keys and values."""
    held = next(line for line in lines() if "held for" in line)
    assert "columns / add_column bot_id / users" in held
    assert held.endswith("ACCESS EXCLUSIVE on users held for 4 ms, acquired after 50 ms, attempt 2")
    assert not any("=" in line for line in lines())


def test_batches_are_sampled() -> None:
    """Twenty batches a second do not bury what matters: one line a table in ten seconds, all of them at
    debug.
    """
    clock, stream = FixedClock(), io.StringIO()
    sink = LogSink(plan="shop", fmt="console", stream=stream, clock=clock)
    for second in range(25):
        clock.now = 100.0 + second
        sink.emit(batch("users"))
        sink.emit(batch("orders"))
    shown = stream.getvalue().splitlines()
    assert sum("users" in line for line in shown) == 3
    assert sum("orders" in line for line in shown) == 3
    assert len(lines("json", "debug", [batch()] * 50)) == 50


def test_a_small_table_is_done_before_it_says_how_far_it_is() -> None:
    """37 small tables make no 37 lines of 6 %."""
    begun = e.StepStarted(stage="fill", step="backfill bot_id", table="users", resumed=False)
    clock, stream = FixedClock(), io.StringIO()
    sink = LogSink(plan="shop", fmt="console", stream=stream, clock=clock)
    for event in (begun, batch(), batch()):
        sink.emit(event)
    clock.now += 10
    sink.emit(batch())
    assert len(stream.getvalue().splitlines()) == 2


def test_what_went_wrong_stands_out() -> None:
    """Warnings are marked, failures more; neither by colour alone."""
    assert any("! lock attempt" in line for line in lines())
    assert any("✗ failed: could not create unique index" in line for line in lines())
    assert any("\x1b[" in line for line in coloured())
    assert not any("\x1b[" in line for line in lines())


def coloured() -> list[str]:
    stream = io.StringIO()
    sink = LogSink(plan="shop", fmt="console", stream=stream, colour=True)
    sink.emit(e.StepFailed(error="no"))
    return stream.getvalue().splitlines()


def test_the_level_is_kept() -> None:
    """``--log-level warning`` shows warnings and errors only."""
    levels = {json.loads(line)["level"] for line in lines("json", "warning")}
    assert levels == {"warning", "error"}


def test_a_closed_stream_does_not_stop_the_run() -> None:
    """The reader of stderr may close it; the migration continues."""
    stream = io.StringIO()
    sink = LogSink(plan="shop", fmt="json", stream=stream)
    stream.close()
    sink.emit(e.Note(message="still here"))


def test_nothing_is_configured_globally() -> None:
    """Two sinks in one process do not fight, and an application that uses structlog keeps its own."""
    before = structlog.get_config()
    for fmt in FORMATS:
        lines(fmt)
    assert structlog.get_config() == before
    assert not structlog.is_configured()
