"""How old a position is (an LSN, a transaction id), from positions that were read before."""

from __future__ import annotations

from collections import deque
from typing import Final

_SAMPLES: Final = 1000
"""positions remembered by a :class:`Trail`: 16 kB of memory, and a resolution of 1/500 of the limit"""


class Trail:
    """The positions of a counter that only grows (an LSN, a transaction id), and since when one is no longer
    current.

    Answers are exact for the last ``keep_s`` seconds; positions are thinned out to keep it small.
    """

    def __init__(self, *, keep_s: float) -> None:
        self._spacing_s = 2 * keep_s / _SAMPLES
        self._seen: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def note(self, at_s: float, position: int) -> None:
        """Remember that ``position`` was current at ``at_s`` seconds, by any one clock of the caller."""
        if not self._seen or at_s - self._seen[-1][0] >= self._spacing_s:
            self._seen.append((at_s, position))

    def age_s(self, at_s: float, position: int) -> float:
        """Seconds since ``position`` was current; a lower bound if that was before the first :meth:`note`."""
        since = next((at for at, seen in reversed(self._seen) if seen <= position), None)
        if since is not None:
            return max(at_s - since, 0.0)
        return max(at_s - self._seen[0][0], 0.0) if self._seen else 0.0
