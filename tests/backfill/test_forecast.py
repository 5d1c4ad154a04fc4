"""What a backfill will take is said as a range, from the catalog first, from its own rate afterwards."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import pytest

from benchmarks.workbench import Heard, workbench
from online_migrate.backfill import progress as telling
from online_migrate.backfill.forecast import (
    KEPT_ROUNDS,
    ROUND_S,
    Costs,
    Mark,
    Rates,
    forecast,
)
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.events import Event, Note
from online_migrate.plan.model import Pace
from online_migrate.postgres.connection import Connection
from tests.backfill.plans import findings_of
from tests.backfill.tables import do, make_table, session


def test_a_forecast_is_a_range() -> None:
    """Half the time asleep is twice the time; an index on the column costs WAL and room."""
    plain = forecast(rows=1_000_000, pages=20_000, duty=0.5, is_sequential=False)
    indexed = forecast(rows=1_000_000, pages=20_000, duty=0.5, is_sequential=True)
    assert plain.seconds.low < plain.seconds.high
    assert (
        forecast(rows=1_000_000, pages=20_000, duty=1.0, is_sequential=False).seconds.high
        == plain.seconds.high / 2
    )
    assert indexed.wal_bytes.low > plain.wal_bytes.high / 2
    assert str(plain + indexed).startswith("2,000,000 rows: ")


def test_an_eta_is_unknown_until_it_is_known() -> None:
    """No invented number: not before a second has passed, and not after a pause until we walk again."""
    rates = Rates()
    assert rates.eta_s is None
    rates.note(0.0, 0.1)
    rates.note(0.5, 0.2)
    assert rates.eta_s is None
    rates.note(2.0, 0.3)
    assert rates.eta_s == pytest.approx(7.0)
    rates.clear()
    rates.note(100.0, 0.3)
    assert rates.eta_s is None


def test_an_eta_is_a_range_from_its_slowest_and_fastest_part() -> None:
    """A window that was half as fast at its end says so."""
    rates = Rates()
    for n in range(13):
        rates.note(n, 0.02 * min(n, 6) + 0.01 * max(n - 6, 0))
    left = rates.eta_range
    assert left is not None
    assert left.low == pytest.approx(0.82 / 0.02)
    assert left.high == pytest.approx(0.82 / 0.01)


def test_memory_stays_flat() -> None:
    """Half a minute is kept, however long the pass is."""
    rates = Rates()
    for n in range(100_000):
        rates.note(n / 10, n / 100_000)
    assert len(rates._points) <= 302


def test_check_forecasts_the_step_once_for_all_its_tables(database: str) -> None:
    """Rows, time, WAL and growth as ranges, and not a line for each table."""
    make_table(database, 2_000)
    make_table(database, 1_000, name="u")
    found = findings_of(database, "backfill: {tables: [t, u], column: c, value: 1}")
    assert found["forecast"].fact.startswith("backfill c: 3,000 rows: ")
    assert " to " in found["forecast"].fact


def marked(rounds: list[tuple[float, int]], *, rows: int = 1_000, bytes_a_row: list[int]) -> Costs:
    """A pass of rounds that end at these shares and table sizes, ten seconds each; one row in ten is
    measured.
    """
    costs = Costs()
    for n, (share, size) in enumerate(rounds):
        if n:
            costs.note(rows - rows // 10, None)
            costs.note(rows // 10, bytes_a_row[n - 1] * (rows // 10))
        costs.end_round(Mark(at_s=10.0 * n, share=share, table_bytes=size))
    return costs


def test_what_is_left_is_as_the_cheapest_and_as_the_dearest_round() -> None:
    """WAL by the rows that were measured, of all rows of the round; growth by the table's size; both by the
    share walked.
    """
    costs = marked([(0.0, 10_000), (0.1, 10_500), (0.3, 12_500)], bytes_a_row=[200, 150])
    wal, growth = costs.wal_left(0.5), costs.growth_left(0.5)
    assert wal is not None
    assert growth is not None
    assert wal.low == pytest.approx(0.5 * 1_000 * 150 / 0.2)
    assert wal.high == pytest.approx(0.5 * 1_000 * 200 / 0.1)
    assert growth.low == pytest.approx(0.5 * 500 / 0.1)
    assert growth.high == pytest.approx(0.5 * 2_000 / 0.2)


def test_one_round_shows_no_spread() -> None:
    """And a half one, as after a resume within a chunk, is not one: unknown until two were walked."""
    assert Costs().wal_left(0.5) is None
    costs = marked([(0.15, 100), (0.2, 200)], bytes_a_row=[100])
    assert costs.wal_left(0.2) is None
    assert costs.growth_left(0.2) is None


def test_a_size_that_could_not_be_read_is_not_made_up() -> None:
    """Behind another session's lock: the rounds on both its sides have no growth,
    and their WAL all the same.
    """
    costs = Costs()
    for n, size in enumerate([100, None, 300, 400]):
        costs.note(10, 1_000)
        costs.end_round(Mark(at_s=n, share=n / 10, table_bytes=size))
    assert costs.growth_left(0.3) is None
    assert costs.wal_left(0.3) is not None


def test_a_table_that_shrinks_grows_by_nothing() -> None:
    """Another session's VACUUM truncated it: no negative growth is foretold."""
    costs = marked([(0.0, 1_000), (0.1, 500), (0.2, 600)], bytes_a_row=[1, 1])
    growth = costs.growth_left(0.2)
    assert growth is not None
    assert growth.low == 0


def test_rounds_that_are_kept_are_few() -> None:
    """The last ones count, and memory stays flat."""
    costs = Costs()
    for n in range(1_000):
        costs.note(10, 1_000)
        costs.end_round(Mark(at_s=n, share=n / 1_000, table_bytes=n))
    assert len(costs._wal) == len(costs._growth) == KEPT_ROUNDS
    assert costs.is_long_enough(999 + ROUND_S)
    assert not costs.is_long_enough(999 + ROUND_S / 2)


SLOW = Pace.model_construct(duty=0.2, batch_target=0.01, min_rows=400, max_rows=400)
SLOWER = Pace.model_construct(duty=0.08, batch_target=0.02, max_rows=300)


@dataclass
class Foretold:
    """Hears a pass, and reads the server when the forecast is logged."""

    watch: Connection
    heard: Heard = field(default_factory=Heard)
    notes: list[str] = field(default_factory=list)
    before: tuple[float, ...] = ()

    def emit(self, event_type: type[Event], **fields: object) -> None:
        self.heard.emit(event_type, **fields)
        if event_type is Note:
            self.notes.append(str(fields["message"]))
            self.before = self.look()

    def look(self) -> tuple[float, ...]:
        """The time in seconds, WAL position and size of the table in bytes."""
        row = self.watch.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8, pg_relation_size('public.t')"
        ).fetchone()
        assert row is not None
        return time.monotonic(), int(row[0]), int(row[1])


def size_of(text: str) -> float:
    """``1.5 MiB`` as bytes, ``3.2 s`` as seconds."""
    number, unit = text.split()
    return float(number) * {"B": 1, "KiB": 1024, "MiB": 1024**2, "ms": 1e-3, "s": 1}[unit]


FORETOLD = re.compile(
    r"public\.t: (\S+ \S+) to (\S+ \S+) left at the rate of the last 30 s;"
    r" (?:about )?(\S+ \S+)(?: to (\S+ \S+))? more WAL(?: \(without VACUUM's own\))?,"
    r" the table grows by (?:about )?(\S+ \S+)(?: to (\S+ \S+))? more,"
    r" measured on the (?:chunks|tenths of the table) done so far"
)


@pytest.mark.parametrize("indexed", [False, True], ids=["interleaved", "index on the column"])
def test_a_running_pass_says_what_is_left_and_is_right(
    database: str, monkeypatch: pytest.MonkeyPatch, indexed: bool
) -> None:
    """Time, WAL and growth as ranges once they are measured, here early on; what is written and grown then
    lies within.
    """
    monkeypatch.setattr(telling, "FORECAST_AFTER_S", 0.0)
    monkeypatch.setattr("online_migrate.backfill.forecast.ROUND_S", 0.0)
    monkeypatch.setattr("online_migrate.backfill.strategy.CHUNK_PAGES", 128)
    monkeypatch.setattr("online_migrate.backfill.worker.MEASURE_WAL_EVERY", 3)
    make_table(database, 80_000, more="CREATE INDEX ON t (c)" if indexed else "")
    do(database, "CHECKPOINT")
    with session(database) as watch:
        foretold = Foretold(watch)
        with workbench(database, "t", pace=SLOW, emit=foretold.emit) as context:
            Backfill(context, table="t", column="c", value=Constant.of(1)).run()
            after = foretold.look()
    reported = FORETOLD.fullmatch(foretold.notes[-1])
    assert reported is not None, foretold.notes
    seconds, wal, growth = (b - a for a, b in zip(foretold.before, after, strict=True))
    ends = [
        reported[1],
        reported[2],
        reported[3],
        reported[4] or reported[3],
        reported[5],
        reported[6] or reported[5],
    ]
    low_s, high_s, low_wal, high_wal, low_growth, high_growth = map(size_of, ends)
    assert 0.6 * low_s <= seconds <= 1.6 * high_s, foretold.notes
    assert 0.8 * low_wal <= wal <= 1.25 * high_wal, foretold.notes
    page = 8192
    assert 0.75 * low_growth - 16 * page <= growth <= 1.25 * high_growth + 16 * page, foretold.notes
    assert high_wal < 10 * wal


def test_what_is_not_measured_yet_is_not_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is one chunk has no second one to compare: its time is reported,
    WAL and growth are n/a.
    """
    monkeypatch.setattr(telling, "FORECAST_AFTER_S", 0.0)
    make_table(database, 20_000)
    heard = Heard()
    with workbench(database, "t", pace=SLOWER, emit=heard.emit) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    (note,) = heard.of("note")
    assert note.message.endswith(
        " left at the rate of the last 30 s; WAL and growth n/a until two chunks are done"
    )
