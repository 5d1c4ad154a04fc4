"""How many rows the next batch takes, and how long we rest before it.  Pure: arithmetic on what was measured.

The batch follows a target time by a smoothed cost per row.  It grows and shrinks in small steps, so that one odd batch
does not throw it about, and is cut to a tenth at once where a batch took far too long.  Waiting for a lock is not work.

Rows of different stripes differ in cost by up to ten times: all pages of a chunk run out of room in the same stripe.  So
each stripe goes by what its like cost in the chunk before, and in the first chunk begins as for the dearest rows so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STEP: Final = 1.5
"""factor; the largest change of the batch from one to the next, up or down (spirit's chunker allows the same)"""
CUT_PAST: Final = 5.0
"""times the target; a batch that took longer is felt by the application, so we do not approach by steps"""
CUT_TO: Final = 0.1
"""of the batch; what is left of it after a cut: even 10 times slower rows are then within the target"""
SMOOTHING: Final = 0.3
"""weight of the newest batch; some 7 batches make 90 % of the estimate: less than a second at the default pace"""
SURPRISE: Final = 3.0
"""times the target; however cheap the rows of a stripe are, a batch that meets the dearest ones of the chunk takes no longer"""
WAL_IS_NEAR: Final = 0.5
"""of the ceiling in WAL; from there on a batch's WAL is worth being measured each time"""
LONGEST_PAUSE_S: Final = 10.0
"""seconds; a single stall of minutes must not put us to sleep for minutes: throttlers hold us where that is due"""
DEFAULT_WAL_BYTES: Final = 16 * 1024**2
"""bytes; one WAL segment of the usual size: a standby at 30 MB/s has it within half a second"""
DEFAULT_START_ROWS: Final = 500
"""rows; some 10 ms on the machine of postgres-facts: four steps below the default target, never far above it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """What to do next: rest ``pause_s`` seconds, then take a batch of ``rows`` expected rows."""

    rows: int
    pause_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What a row of a stripe has cost; 0 where it is not known."""

    row_s: float = 0.0
    row_wal_bytes: float = 0.0


class Pacer:
    """Keeps batches at ``target_s`` seconds of work and our share of the time at ``duty`` (0…1; 1 never rests).

    ``rows`` stays within ``min_rows`` and ``max_rows``, and, down to the floor, a batch within ``max_wal_bytes`` of WAL
    as measured.  Not for several threads: a worker has its own.  Raises ValueError on bounds that make no sense.
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
        self._last_row_wal_bytes = 0.0
        self._stripe = 0
        self._stripes: dict[int, _Cost] = {}
        self._dearest_row_s = 0.0
        self.retune(
            target_s=target_s, duty=duty, min_rows=min_rows, max_rows=max_rows, max_wal_bytes=max_wal_bytes
        )

    def retune(
        self, *, target_s: float, duty: float, min_rows: int, max_rows: int, max_wal_bytes: int | None = None
    ) -> None:
        """Take over an operator's new pace; what was learned about the table's rows is kept."""
        if not (target_s > 0 and 0 < duty <= 1 and 1 <= min_rows <= max_rows):
            raise ValueError(
                f"a pace needs target_s > 0, 0 < duty <= 1, 1 <= min_rows <= max_rows; got {target_s=}, {duty=},"
                f" {min_rows=}, {max_rows=}"
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
        """Expected rows of the next batch."""
        return int(self._size)

    @property
    def wants_wal(self) -> bool:
        """Should the next batch's WAL be measured: nothing is known of this stripe's, or it is what keeps the batch small."""
        return (
            self._row_wal_bytes is None
            or self._size * self._worst_row_wal_bytes > WAL_IS_NEAR * self._max_wal_bytes
        )

    def begin_stripe(self, stripe: int) -> None:
        """Rows of this stripe of a chunk follow: they cost what this stripe's have cost in the chunk before.

        Where that is not known, the next batch is no larger than the last one, and than the dearest rows so far allow; in WAL
        the first stripe does not count, whose rows bring along full-page images that the others find written.
        """
        if self._row_s is not None:
            self._stripes[self._stripe] = _Cost(row_s=self._row_s, row_wal_bytes=self._row_wal_bytes or 0.0)
        self._dearest_row_s = max((c.row_s for c in self._stripes.values()), default=0.0)
        self._stripe, self._row_s, self._row_wal_bytes, self._last_row_wal_bytes = stripe, None, None, 0.0
        if own := self._stripes.get(stripe):
            size, row_s, row_wal_bytes = float(self._max_rows), own.row_s, own.row_wal_bytes
            self._row_wal_bytes = own.row_wal_bytes or None
        else:
            size, row_s = self._size, self._dearest_row_s
            row_wal_bytes = max((c.row_wal_bytes for s, c in self._stripes.items() if s), default=0.0)
        if row_s > 0:
            size = min(size, self._target_s / row_s)
        if row_wal_bytes > 0:
            size = min(size, self._max_wal_bytes / row_wal_bytes)
        self._size = self._within_bounds(size)

    def decide(
        self, *, rows: int, batch_s: float, wal_bytes: int | None = None, lock_wait_s: float = 0.0
    ) -> Pacing:
        """Learn from a batch and say what comes next.

        ``rows`` is the number of rows that the batch was expected to hold (fewer than :attr:`rows` where a slice ends
        early), ``batch_s`` its seconds from the first statement to the commit's answer, of which ``lock_wait_s`` were
        spent waiting for others' locks and are not work; ``wal_bytes`` what it wrote, where known.
        """
        work_s = max(batch_s - lock_wait_s, 0.0)
        if rows > 0:
            weight = min(rows / self._size, 1.0)
            self._learn_wal(rows, wal_bytes, weight)
            self._resize(rows, work_s, weight)
        return Pacing(rows=self.rows, pause_s=self._pause_s(work_s))

    def _resize(self, rows: int, work_s: float, weight: float) -> None:
        if work_s > CUT_PAST * self._target_s:
            self._size = self._within_bounds(self._size * CUT_TO)
            self._row_s = None  # a stall says nothing about what a row costs
            return
        # A batch that a slice's end cut short tells less: its fixed cost stands on few rows.
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
        """Floor and ceiling; the WAL's ceiling goes by the worse of last and usual, and never below the floor."""
        if self._dearest_row_s > 0:
            size = min(size, SURPRISE * self._target_s / self._dearest_row_s)
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
