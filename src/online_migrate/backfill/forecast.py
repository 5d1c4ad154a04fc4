"""What a backfill will cost, as ranges: from the catalog before it starts, from its own measured rate later.
Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from online_migrate.figures import bytes_text, short_seconds_text

ROWS_PER_S = (15_000.0, 250_000.0)
"""rows per second of work, least and most; docs/benchmarks.md says what was measured on which machine"""
SEQUENTIAL_ROWS_PER_S = (7_000.0, 80_000.0)
"""the same where an index contains the column"""
WAL_PER_ROW = (130.0, 260.0)
"""bytes, heap-only, without full-page images: 65 to 130 MB for 500,000 rows (postgres-facts)"""
SEQUENTIAL_WAL_PER_ROW = (500.0, 1100.0)
"""bytes, with an index entry in every index for each row"""
PAGE_BYTES = 8192
GROWTH = (0.0, 0.2)
"""share of the table's size; 0.02 to 0.15 if no snapshot is older than the revisit interval"""
SEQUENTIAL_GROWTH = (0.05, 0.25)
RATE_WINDOW_S = 30.0
SHORTEST_S = 1.0
"""a shorter time does not measure a rate"""
PARTS = 6
"""of the window: the slowest and the fastest of them are the ends of the range"""
ROUND_S = 5.0
"""a shorter round is counted together with the next: the table's size is not read more often"""
KEPT_ROUNDS = 12
FEWEST_ROUNDS = 2
"""a range needs two"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, high=self.high + other.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The costs of one table, or of several one after the other."""

    rows: int
    seconds: Range
    wal_bytes: Range
    growth_bytes: Range

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(
            rows=self.rows + other.rows,
            seconds=self.seconds + other.seconds,
            wal_bytes=self.wal_bytes + other.wal_bytes,
            growth_bytes=self.growth_bytes + other.growth_bytes,
        )

    def __str__(self) -> str:
        low, high = self.growth_bytes.low, self.growth_bytes.high
        return (
            f"{self.rows:,} rows: {short_seconds_text(self.seconds.low)}"
            f" to {short_seconds_text(self.seconds.high)},"
            f" {bytes_text(self.wal_bytes.low)} to {bytes_text(self.wal_bytes.high)} of WAL,"
            f" the table grows by {bytes_text(low)} to {bytes_text(high)}"
        )


def forecast(*, rows: int, pages: int, duty: float, is_sequential: bool) -> Forecast:
    """From the catalog, whose estimate ``rows`` is.  The upper end of WAL includes a full-page image of each
    page.
    """
    fast = SEQUENTIAL_ROWS_PER_S if is_sequential else ROWS_PER_S
    wal = SEQUENTIAL_WAL_PER_ROW if is_sequential else WAL_PER_ROW
    growth = SEQUENTIAL_GROWTH if is_sequential else GROWTH
    size = pages * PAGE_BYTES
    return Forecast(
        rows=rows,
        seconds=Range(low=rows / fast[1] / duty, high=rows / fast[0] / duty),
        wal_bytes=Range(low=rows * wal[0], high=rows * wal[1] + size),
        growth_bytes=Range(low=growth[0] * size, high=growth[1] * size),
    )


class Rates:
    """The rate of a pass, pauses included: share done over time, in the last RATE_WINDOW_S."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def clear(self) -> None:
        """After a hold: the rate is unknown until some seconds were measured again."""
        self._points.clear()

    def note(self, now_s: float, share: float) -> None:
        self._points.append((now_s, share))
        while now_s - self._points[0][0] > RATE_WINDOW_S:
            self._points.popleft()

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the window's rate; None if it is unknown."""
        if not self._points:
            return None
        return _left(self._points[0], self._points[-1])

    @property
    def eta_range(self) -> Range | None:
        """Seconds left at the fastest and at the slowest rate of the window's parts."""
        points = list(self._points)
        step = max(len(points) // PARTS, 1)
        ends = points[::step]
        share = points[-1][1] if points else 1.0
        rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(ends) if b[0] > a[0] and b[1] > a[1]]
        if self.eta_s is None or not rates:
            return None
        return Range(low=(1 - share) / max(rates), high=(1 - share) / min(rates))


def _left(first: tuple[float, float], last: tuple[float, float]) -> float | None:
    seconds, gained = last[0] - first[0], last[1] - first[1]
    return None if gained <= 0 or seconds < SHORTEST_S else (1 - last[1]) * seconds / gained


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The position of a pass between two rounds; ``table_bytes`` is None if the size could not be read."""

    at_s: float
    share: float
    table_bytes: int | None


class Costs:
    """How much WAL a pass writes, and how much its table grows, measured round by round.

    A round is the unit that repeats: a chunk, whose first stripe finds no room in its pages while all others
    do; where an index contains the column, the part between two vacuums.  One half of a round does not
    predict the other.
    """

    def __init__(self) -> None:
        self._mark: Mark | None = None
        self._rows = self._measured_rows = self._measured_bytes = 0
        self._wal: deque[float] = deque(maxlen=KEPT_ROUNDS)
        self._growth: deque[float] = deque(maxlen=KEPT_ROUNDS)

    def note(self, rows: int, wal_bytes: int | None) -> None:
        """Add a batch; ``wal_bytes`` is None if it was not measured."""
        self._rows += rows
        if wal_bytes is not None:
            self._measured_rows += rows
            self._measured_bytes += wal_bytes

    def is_long_enough(self, now_s: float) -> bool:
        return self._mark is None or now_s - self._mark.at_s >= ROUND_S

    def end_round(self, mark: Mark) -> None:
        """End the current round, if there is one, and start the next."""
        before, self._mark = self._mark, mark
        rows, measured_rows, measured_bytes = self._rows, self._measured_rows, self._measured_bytes
        self._rows = self._measured_rows = self._measured_bytes = 0
        if before is None or mark.share <= before.share:
            return
        walked = mark.share - before.share
        if measured_rows:
            self._wal.append(measured_bytes / measured_rows * rows / walked)
        if mark.table_bytes is not None and before.table_bytes is not None:
            self._growth.append(max(mark.table_bytes - before.table_bytes, 0) / walked)

    def wal_left(self, share: float) -> Range | None:
        """Bytes of WAL that the batches from ``share`` on will write; None if that is unknown."""
        return _spread(self._wal, 1 - share)

    def growth_left(self, share: float) -> Range | None:
        """Bytes by which the table will grow; None if that is unknown."""
        return _spread(self._growth, 1 - share)


def _spread(by_share: deque[float], left: float) -> Range | None:
    """From the cheapest to the most expensive round."""
    if len(by_share) < FEWEST_ROUNDS:
        return None
    return Range(low=min(by_share) * left, high=max(by_share) * left)
