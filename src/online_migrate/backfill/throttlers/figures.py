"""Figures with their units, as operators read them; and how old a position is, from positions seen before."""

from __future__ import annotations

from collections import deque
from typing import Final

_SAMPLES: Final = 1000
"""positions remembered by a :class:`Trail`: 16 kB of memory, and a resolution of 1/500 of the limit"""


def bytes_text(number: float) -> str:
    """``67108864`` → ``64 MiB``: the units that a plan is written in."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def seconds_text(seconds: float) -> str:
    """``90`` → ``90 s``, ``600`` → ``10 min``, ``0.25`` → ``250 ms``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


class Trail:
    """Where a counter that only grows (an LSN, a transaction id) stood when; tells how long ago a position was current.

    ``keep_s`` is how far back answers are exact; it is thinned out to stay small.
    """

    def __init__(self, *, keep_s: float) -> None:
        self._spacing_s = 2 * keep_s / _SAMPLES
        self._seen: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def note(self, at_s: float, position: int) -> None:
        """Remember that ``position`` was current at ``at_s`` seconds (of any clock that the caller keeps to)."""
        if not self._seen or at_s - self._seen[-1][0] >= self._spacing_s:
            self._seen.append((at_s, position))

    def age_s(self, at_s: float, position: int) -> float:
        """Seconds since ``position`` was current; at least so many where that was before our first look."""
        since = next((at for at, seen in reversed(self._seen) if seen <= position), None)
        if since is not None:
            return max(at_s - since, 0.0)
        return max(at_s - self._seen[0][0], 0.0) if self._seen else 0.0
