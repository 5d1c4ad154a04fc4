"""What the lock windows of a run held and waited for, as observed: the last thing that run says."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.events import Event, LockAttemptFailed, LockHeld
from online_migrate.figures import percentile


class LockSummary:
    """A sink that keeps the windows' figures, in seconds."""

    def __init__(self) -> None:
        self.held: list[LockHeld] = []
        self.given_way: list[LockAttemptFailed] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, LockHeld) and event.locks:
            self.held.append(event)
        elif isinstance(event, LockAttemptFailed):
            self.given_way.append(event)

    def lines(self) -> Iterator[str]:
        """A line for the run, and a table with a line a step; nothing where no window was needed."""
        if not self.held and not self.given_way:
            return
        held = [e.held_s for e in self.held]
        longest = max(self.held, key=lambda e: e.held_s, default=None)
        on = "" if longest is None else f" ({longest.lock} on {longest.relation})"
        yield (
            f"lock windows: {len(self.held)}, held {_ms(percentile(held, 0.5))} in the middle, {_ms(percentile(held, 0.99))} at p99,"
            f" {_ms(max(held, default=0.0))} at most{on}; gave way {len(self.given_way)} ×"
        )
        steps = dict.fromkeys((e.stage, e.step) for e in (*self.held, *self.given_way))
        width = max(len(f"{stage} / {step}") for stage, step in steps)
        yield f"  {'':{width}}  windows  tries  held at most  waited at most"
        for stage, step in steps:
            yield self._line(stage, step, width)

    def _line(self, stage: str, step: str, width: int) -> str:
        held = [e for e in self.held if (e.stage, e.step) == (stage, step)]
        gave = [e for e in self.given_way if (e.stage, e.step) == (stage, step)]
        longest_s = max((e.held_s for e in held), default=0.0)
        waited_s = max([e.waited_s for e in held] + [e.waited_s for e in gave], default=0.0)
        tries = len(held) + len(gave)
        return f"  {f'{stage} / {step}':{width}}  {len(held):7}  {tries:5}  {_ms(longest_s):>12}  {_ms(waited_s):>14}"


def _ms(seconds: float | None) -> str:
    return f"{(seconds or 0.0) * 1000:.1f} ms"
