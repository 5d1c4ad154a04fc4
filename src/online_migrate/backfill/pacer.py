"""The number of rows of the next batch, and the pause before it.  Pure: computed from measurements.

The batch follows a target time by a smoothed cost per row.  It grows and shrinks in small steps, so that one
unusual batch changes it little, and is cut to a tenth at once after a batch that took far too long.  Waiting
for a lock is not work.

The cost of rows differs between stripes by up to ten times: all pages of a chunk run out of room in the same
stripe.  So each stripe uses the cost of the same stripe in the chunk before; in the first chunk, that of the
most expensive rows so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STEP: Final = 1.5
"""factor; the largest change from one batch to the next, up or down (the same as in spirit's chunker)"""
CUT_PAST: Final = 5.0
"""times the target; a longer batch delays the application, so small steps would be too slow"""
CUT_TO: Final = 0.1
"""of the batch; its size after a cut: rows that are 10 times slower are then still within the target"""
SMOOTHING: Final = 0.3
"""weight of the newest batch; the last 7 or so make 90 % of the estimate: less than a second at the default
pace"""
SURPRISE: Final = 3.0
"""times the target; the limit of a batch of cheap rows if it meets the most expensive rows of the chunk"""
WAL_IS_NEAR: Final = 0.5
"""of the ceiling in WAL; above it the WAL of each batch is measured"""
LONGEST_PAUSE_S: Final = 10.0
"""seconds; one stall of minutes must not cause a pause of minutes: holding is what throttlers are for"""
DEFAULT_WAL_BYTES: Final = 16 * 1024**2
"""bytes; one WAL segment of the default size: a standby at 30 MB/s receives it within half a second"""
DEFAULT_START_ROWS: Final = 500
"""rows; some 10 ms on the machine of postgres-facts: four steps below the default target, never far above it
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """The next step: pause for ``pause_s`` seconds, then a batch of ``rows`` expected rows."""

    rows: int
    pause_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """The measured cost of a row of a stripe; 0 if unknown."""

    row_s: float = 0.0
    row_wal_bytes: float = 0.0


class Pacer:
    """Keeps batches at ``target_s`` seconds of work and our share of the time at ``duty`` (0…1; 1 never
    pauses).

    ``rows`` stays within ``min_rows`` and ``max_rows``; a batch stays within ``max_wal_bytes`` of measured
    WAL, unless that needs fewer rows than the floor.  Not thread-safe: each worker has its own.  Raises
    ValueError on invalid bounds.
    """

    def __init__(
        self,
        *,
        target_s: float,
        duty: float,
        min_rows: int,
        max_rows: int,
        max_wal_bytes: int = DEFAULT_WAL_BYTES,
        start_rows: int = DEFAULT_START_ROWS,
    ) -> None:
        self._size = float(start_rows)
        self._row_s: float | None = None
        self._row_wal_bytes: float | None = None
        self._last_row_wal_bytes = self._last_row_s = 0.0
        self._stripe = 0
        self._stripes: dict[int, _Cost] = {}
        self._worst_row_s = 0.0
        self.retune(
            target_s=target_s, duty=duty, min_rows=min_rows, max_rows=max_rows, max_wal_bytes=max_wal_bytes
        )

    def retune(
        self, *, target_s: float, duty: float, min_rows: int, max_rows: int, max_wal_bytes: int | None = None
    ) -> None:
        """Change the pace; the measured costs of the table's rows are kept."""
        if not (target_s > 0 and 0 < duty <= 1 and 1 <= min_rows <= max_rows):
            raise ValueError(
                "a pace needs target_s > 0, 0 < duty <= 1, 1 <= min_rows <= max_rows; got"
                f" {target_s=}, {duty=}, {min_rows=}, {max_rows=}"
            )
        if max_wal_bytes is not None:
            if max_wal_bytes <= 0:
                raise ValueError(f"max_wal_bytes is {max_wal_bytes}; it must be above 0")
            self._max_wal_bytes = max_wal_bytes
        self._target_s = target_s
        self._duty = duty
        self._min_rows = min_rows
        self._max_rows = max_rows
        self._size = self._within_bounds(self._size)

    @property
    def rows(self) -> int:
        """The expected rows of the next batch."""
        return int(self._size)

    @property
    def floor_s(self) -> float:
        """Seconds that the smallest batch, of ``min_rows``, takes at the cost of the
        last one; 0 if unknown.
        """
        return self._last_row_s * self._min_rows

    @property
    def wants_wal(self) -> bool:
        """Whether to measure the next batch's WAL: that of this stripe is unknown, or it limits the batch."""
        return (
            self._row_wal_bytes is None
            or self._size * self._worst_row_wal_bytes > WAL_IS_NEAR * self._max_wal_bytes
        )

    def begin_stripe(self, stripe: int) -> None:
        """Rows of this stripe of a chunk follow: expect the cost that the same stripe had in the chunk
        before.

        If that is unknown, the next batch is at most as large as the last one, and as the most expensive rows
        so far allow. For WAL the first stripe does not count: its rows write full-page images, those of the
        other stripes do not.
        """
        if self._row_s is not None:
            self._stripes[self._stripe] = _Cost(row_s=self._row_s, row_wal_bytes=self._row_wal_bytes or 0.0)
        self._worst_row_s = max((c.row_s for c in self._stripes.values()), default=0.0)
        self._stripe, self._row_s, self._row_wal_bytes, self._last_row_wal_bytes = stripe, None, None, 0.0
        if own := self._stripes.get(stripe):
            size, row_s, row_wal_bytes = float(self._max_rows), own.row_s, own.row_wal_bytes
            self._row_wal_bytes = own.row_wal_bytes or None
        else:
            size, row_s = self._size, self._worst_row_s
            row_wal_bytes = max((c.row_wal_bytes for s, c in self._stripes.items() if s), default=0.0)
        if row_s > 0:
            size = min(size, self._target_s / row_s)
        if row_wal_bytes > 0:
            size = min(size, self._max_wal_bytes / row_wal_bytes)
        self._size = self._within_bounds(size)

    def decide(
        self, *, rows: int, batch_s: float, wal_bytes: int | None = None, lock_wait_s: float = 0.0
    ) -> Pacing:
        """Learn from a batch, and decide the next one.

        ``rows`` is the number of rows that the batch was expected to contain (fewer than :attr:`rows` if a
        slice ends early), ``batch_s`` its seconds from the first statement to the commit's answer, of which
        ``lock_wait_s`` were waits for other sessions' locks and not work; ``wal_bytes`` is the WAL that it
        wrote, if known.
        """
        work_s = max(batch_s - lock_wait_s, 0.0)
        if rows > 0:
            weight = min(rows / self._size, 1.0)
            self._last_row_s = work_s / rows
            self._learn_wal(rows, wal_bytes, weight)
            self._resize(rows, work_s, weight)
        return Pacing(rows=self.rows, pause_s=self._pause_s(work_s))

    def _resize(self, rows: int, work_s: float, weight: float) -> None:
        if work_s > CUT_PAST * self._target_s:
            self._size = self._within_bounds(self._size * CUT_TO)
            self._row_s = None  # a stall does not measure the cost of a row
            return
        # A batch that ended early with its slice weighs less: its fixed cost is shared by few rows.
        self._row_s = _smooth(self._row_s, work_s / rows, weight)
        largest, least = self._size * STEP, self._size / STEP
        wanted = self._target_s / self._row_s if self._row_s > 0 else largest
        self._size = self._within_bounds(min(max(wanted, least), largest))

    def _learn_wal(self, rows: int, wal_bytes: int | None, weight: float) -> None:
        if wal_bytes is None:
            return
        self._last_row_wal_bytes = max(wal_bytes, 0) / rows
        self._row_wal_bytes = _smooth(self._row_wal_bytes, self._last_row_wal_bytes, weight)

    @property
    def _worst_row_wal_bytes(self) -> float:
        return max(self._row_wal_bytes or 0.0, self._last_row_wal_bytes)

    def _within_bounds(self, size: float) -> float:
        """Apply floor and ceilings; the ceiling in WAL uses the worse of the last and the usual cost."""
        if self._worst_row_s > 0:
            size = min(size, SURPRISE * self._target_s / self._worst_row_s)
        if self._worst_row_wal_bytes > 0:
            size = min(size, self._max_wal_bytes / self._worst_row_wal_bytes)
        return max(min(size, float(self._max_rows)), float(self._min_rows))

    def _pause_s(self, work_s: float) -> float:
        return min(work_s * (1 - self._duty) / self._duty, LONGEST_PAUSE_S)


def _smooth(before: float | None, measured: float, weight: float) -> float:
    if before is None:
        return measured
    share = SMOOTHING * weight
    return before * (1 - share) + measured * share
