"""What a backfill will take is said as a range, from the catalog first, from its own rate afterwards."""

from __future__ import annotations

import pytest

from online_migrate.backfill.forecast import Rates, bytes_text, forecast, seconds_text
from online_migrate.events import Note
from tests.backfill.plans import findings_of
from tests.backfill.tables import make_table


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


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1_500, "1.5 kB"), (26e6, "26 MB"), (4.2e9, "4.2 GB")]
)
def test_sizes_read_well(size: float, text: str) -> None:
    """Two digits that matter."""
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.25, "1.2 s"), (61, "61 s"), (720, "12 min"), (20_000, "5.6 h")]
)
def test_times_read_well(seconds: float, text: str) -> None:
    """As one would say them."""
    assert seconds_text(seconds) == text


def test_check_forecasts_the_step_once_for_all_its_tables(database: str) -> None:
    """Rows, time, WAL and growth as ranges, and not a line for each table."""
    make_table(database, 2_000)
    make_table(database, 1_000, name="u")
    found = findings_of(database, "backfill: {tables: [t, u], column: c, value: 1}")
    assert found["forecast"].fact.startswith("backfill c: 3,000 rows: ")
    assert " to " in found["forecast"].fact


def test_a_running_pass_says_what_is_left(database: str) -> None:
    """From the first minute on: a note with a range; here the minute is made short."""
    from benchmarks.workbench import Heard, workbench
    from online_migrate.backfill.worker import Backfill
    from online_migrate.plan.model import Pace

    make_table(database, 20_000)
    heard = Heard()
    pace = Pace.model_construct(duty=0.08, batch_target=0.02, max_rows=300)
    with workbench(database, "t", pace=pace, emit=heard.emit) as bench:
        work = Backfill(bench, table="t", column="c", value="1")
        work._teller._forecast_at = bench.clock.monotonic()
        work.run()
    notes = [e.message for e in heard.events if isinstance(e, Note)]
    assert any("left, by the rate of the last half minute" in n for n in notes)
