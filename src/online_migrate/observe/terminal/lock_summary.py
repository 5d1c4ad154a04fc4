"""How long the lock windows of a run held and waited, as observed; ``run`` prints it last."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.events import Event, LockAttemptFailed, LockHeld
from online_migrate.figures import percentile


class LockSummary:
    """A sink that keeps the figures of lock windows, in seconds."""

    def __init__(self) -> None:
        self.held: list[LockHeld] = []
        self.failed: list[LockAttemptFailed] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, LockHeld) and event.locks:
            self.held.append(event)
        elif isinstance(event, LockAttemptFailed):
            self.failed.append(event)

    def lines(self) -> Iterator[str]:
        """A line for the run, and a table with one line per step; nothing if no lock window was needed."""
        if not self.held and not self.failed:
            return
        held = [e.held_s for e in self.held]
        longest = max(self.held, key=lambda e: e.held_s, default=None)
        on = "" if longest is None else f" ({longest.lock} on {longest.relation})"
        yield (
            f"{len(self.held)} lock window{'s' * (len(self.held) != 1)}: held"
            f" {_ms(percentile(held, 0.5))} (median), {_ms(percentile(held, 0.99))} (99th percentile),"
            f" {_ms(max(held, default=0.0))} at most{on};"
            f" {len(self.failed)} failed lock attempt{'s' * (len(self.failed) != 1)}"
        )
        steps = dict.fromkeys((e.stage, e.step) for e in (*self.held, *self.failed))
        width = max(len(f"{stage} / {step}") for stage, step in steps)
        yield f"  {'':{width}}  windows  attempts  held at most  waited at most"
        for stage, step in steps:
            yield self._line(stage, step, width)

    def _line(self, stage: str, step: str, width: int) -> str:
        held = [e for e in self.held if (e.stage, e.step) == (stage, step)]
        failed = [e for e in self.failed if (e.stage, e.step) == (stage, step)]
        held_s = max((e.held_s for e in held), default=0.0)
        waited_s = max([e.waited_s for e in held] + [e.waited_s for e in failed], default=0.0)
        attempts = len(held) + len(failed)
        name = f"{stage} / {step}"
        return f"  {name:{width}}  {len(held):7}  {attempts:8}  {_ms(held_s):>12}  {_ms(waited_s):>14}"


def _ms(seconds: float | None) -> str:
    return f"{(seconds or 0.0) * 1000:.1f} ms"
