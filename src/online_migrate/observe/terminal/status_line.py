"""The run in one line, for a pipe or a log: the tables that matter by name, the others counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from online_migrate.figures import count_text, seconds_text, share_text
from online_migrate.observe.snapshot.views import Snapshot, StepView
from online_migrate.observe.terminal.rows import WORDS, state_of, waits_of
from online_migrate.observe.terminal.wait_lines import wait_lines
from online_migrate.printable import printable_record

_NAMED: Final = {"failed": 3, "moving": 3, "waiting": 1}
"""tables that the line names; the others are counted"""


def status_line(snapshot: Snapshot) -> str:
    """The run in one line, for an output that is no terminal."""
    snapshot = printable_record(snapshot)
    done = sum(step.state == "done" for step in snapshot.steps)
    state = snapshot.state if snapshot.is_live or snapshot.state != "running" else "no runner"
    parts = [f"{snapshot.plan}: {state}", f"{done} of {len(snapshot.steps)} steps"]
    stage = snapshot.stage
    if stage is not None:
        parts.append(f"stage {stage.stage} ({snapshot.stages.index(stage) + 1} of {len(snapshot.stages)})")
    parts += [passes] if (passes := passes_text(snapshot)) else []
    parts += _named(snapshot)
    parts += [f"waiting: {line}" for line in wait_lines(snapshot, reasons=1)]
    return "; ".join(parts)


def _named(snapshot: Snapshot) -> Iterable[str]:
    """Steps that failed, move or wait, a few of each; the end of the line has the reasons of the waits."""
    waits = waits_of(snapshot)
    steps = [(step, state_of(step, waits)) for step in snapshot.steps]
    for wanted, most in _NAMED.items():
        found = [step for step, state in steps if state == wanted and step.state != "pending"]
        named = found[:most]
        yield from (_step_words(step, state_of(step, waits)) for step in named)
        if len(found) > len(named):
            yield f"{len(found) - len(named)} more {WORDS[wanted]}"
    if snapshot.passes is None:  # else it is counted
        yield from (_step_words(step, state) for step, state in steps if state == "passed")


def _step_words(step: StepView, state: str) -> str:
    words = " ".join(p for p in (step.step, step.table) if p)
    if state == "failed":
        return f"{words} failed: {step.reason}"
    if step.share_done is None:
        return words
    expected = "" if step.rows_expected is None else f" of about {count_text(step.rows_expected)}"
    rows = f"{words} {share_text(step.share_done)}, {count_text(step.rows_done)}{expected} rows"
    if state == "passed":
        return f"{rows}, {step.reason}"
    if state == "waiting":
        return f"{rows}, waiting"
    rate = "" if step.rate is None else f", {count_text(step.rate)} rows/s"
    return f"{rows}{rate}, time left {seconds_text(step.eta_s)}"


def passes_text(snapshot: Snapshot) -> str:
    """How many tables are filled; empty if no step fills several tables now."""
    passes = snapshot.passes
    return "" if passes is None else f"{passes.passed} of {passes.total} tables filled"
