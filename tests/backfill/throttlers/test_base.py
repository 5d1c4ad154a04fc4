"""Several throttlers as one, failing closed."""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.backfill.throttlers.base import OUR_PIDS, Reading, Throttle, bounded
from online_migrate.clock import Signal
from online_migrate.journal.lease import hold_shared
from online_migrate.postgres.connection import Connection, Connector


class StillClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float, signal: Signal) -> bool:
        self.now += seconds
        return signal.is_stopping


class Gauge:
    """A throttler that says what a test sets; None is an error."""

    def __init__(
        self,
        name: str,
        utilisation: float | None = 0.0,
        *,
        clock: StillClock | None = None,
        takes_s: float = 0.0,
    ) -> None:
        self.name = name
        self.utilisation = utilisation
        self.asked = 0
        self._clock = clock or StillClock()
        self._takes_s = takes_s

    def read(self, connection: Connection) -> Reading:
        self.asked += 1
        self._clock.now += self._takes_s
        if self.utilisation is None:
            connection.execute("SELECT 1/0")
            raise AssertionError
        return Reading(name=self.name, utilisation=self.utilisation, reason=f"{self.name} says so")

    def blind(self, connection: Connection) -> str | None:  # noqa: ARG002  # as the protocol has it
        return None


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def test_the_worst_decides(connection: Connection, clock: StillClock) -> None:
    """One that is red holds, however healthy the others are, and its name and reason are what people see."""
    low, high = Gauge("low", 0.1), Gauge("high", 0.7)
    throttle = Throttle([low, high], clock, every_s=0)
    throttle.read(connection)
    assert throttle.held_by() is None
    low.utilisation = 1.0
    assert held_by(throttle, connection) == ("low", "low says so")
    high.utilisation = 2.0
    assert held_by(throttle, connection) == ("high", "high says so")


def test_who_was_named_holds_until_it_is_green(connection: Connection, clock: StillClock) -> None:
    """Of two that are red at once neither is reported again at each reading; once it is green, the other is
    named.
    """
    first, second = Gauge("first", 1.5), Gauge("second", 1.1)
    throttle = Throttle([first, second], clock, every_s=0)
    assert held_by(throttle, connection) == ("first", "first says so")
    first.utilisation, second.utilisation = 1.0, 3.0
    assert held_by(throttle, connection, "first") == ("first", "first says so")
    first.utilisation = 0.1
    assert held_by(throttle, connection, "first") == ("second", "second says so")


def held_by(throttle: Throttle, connection: Connection, named: str = "") -> tuple[str, str]:
    throttle.read(connection)
    red = throttle.held_by(named)
    assert red is not None
    return red.name, red.reason


def test_red_decides_before_high(connection: Connection, clock: StillClock) -> None:
    """One that was red and is not green again yet holds, although another is higher."""
    was_red, high = Gauge("was_red", 1.5), Gauge("high", 0.99)
    throttle = Throttle([was_red, high], clock, every_s=0)
    throttle.read(connection)
    was_red.utilisation = 0.95
    held = held_by(throttle, connection)
    assert held == ("was_red", "was_red says so; released at 90% of the limit")
    was_red.utilisation = 0.9
    throttle.read(connection)
    assert throttle.held_by() is None


def test_nothing_to_watch_never_holds(connection: Connection, clock: StillClock) -> None:
    """A plan that names no reading runs unheld."""
    throttle = Throttle([], clock)
    assert throttle.read(connection) == ()
    assert throttle.held_by() is None


def test_it_holds_before_the_first_answer(connection: Connection, clock: StillClock) -> None:
    """Nothing known is red, not green: at the start, and where the first question fails."""
    throttle = Throttle([Gauge("gauge", None)], clock)
    assert throttle.held_by() is not None
    reading = throttle.read(connection)[0]
    assert reading.is_red
    assert reading.reason == "throttler gauge has not answered for 0 ms (division by zero)"


def test_one_that_falls_silent_is_red_after_a_while(connection: Connection, clock: StillClock) -> None:
    """A blip keeps the last reading; from 15 s on it is red with the error, and green again with the next
    answer.
    """
    gauge = Gauge("gauge", 0.2)
    throttle = Throttle([gauge], clock)
    throttle.read(connection)
    gauge.utilisation = None
    clock.now += 14
    blip = throttle.read(connection)[0]
    assert (blip.utilisation, blip.age_s, blip.is_red) == (0.2, 14.0, False)
    clock.now += 3
    silent = throttle.read(connection)[0]
    assert silent.is_red
    assert silent.utilisation >= 1
    assert silent.reason == "throttler gauge has not answered for 17 s (division by zero)"
    gauge.utilisation = 0.2
    clock.now += 1
    assert not throttle.read(connection)[0].is_red


def test_one_that_was_red_stays_red_while_silent(connection: Connection, clock: StillClock) -> None:
    """An error is no reason to go on."""
    gauge = Gauge("gauge", 2.0)
    throttle = Throttle([gauge], clock)
    throttle.read(connection)
    gauge.utilisation = None
    for _ in range(20):
        clock.now += 1
        (reading,) = throttle.read(connection)
        assert reading.is_red
        assert reading.utilisation == 2.0


def test_readings_grow_old_while_nobody_asks(connection: Connection, clock: StillClock) -> None:
    """A worker that hangs does not go on with what was true a minute ago."""
    throttle = Throttle([Gauge("gauge", 0.2)], clock)
    throttle.read(connection)
    clock.now += 60
    red = throttle.held_by()
    assert red is not None
    assert red.reason == "throttler gauge has not answered for 60 s (it was not read again)"


def test_each_is_asked_at_most_once_a_second(connection: Connection, clock: StillClock) -> None:
    """Batches of 50 ms do not turn into twenty questions a second; a failing one is
    asked as often, no more.
    """
    good, bad = Gauge("good"), Gauge("bad", None)
    throttle = Throttle([good, bad], clock)
    for _ in range(20):
        throttle.read(connection)
        clock.now += 0.1
    assert (good.asked, bad.asked) == (2, 2)


@pytest.mark.parametrize(("takes_s", "asked"), [(0.01, 20), (1.0, 5), (2.0, 3), (6.0, 3)])
def test_a_slow_one_is_asked_less_often(
    connection: Connection, clock: StillClock, takes_s: float, asked: int
) -> None:
    """Nothing is written while it is asked: a quarter of the time is enough for it, as long as its answer
    stays fresh.
    """
    gauge = Gauge("slow", 0.2, clock=clock, takes_s=takes_s)
    throttle = Throttle([gauge], clock)
    end = clock.now + 20
    while clock.now < end:
        (reading,) = throttle.read(connection)
        assert not reading.is_red
        assert reading.took_s == pytest.approx(takes_s)
        clock.now += 0.05
    assert gauge.asked == asked


def test_a_lost_connection_is_no_answer(database: str, clock: StillClock) -> None:
    """The session may be ended under us: that is red, never an exception out of the throttle, and never
    green.
    """
    throttle = Throttle([Gauge("gauge", None)], clock)
    connection = Connector(dsn=database).open("test")
    connection.close()
    assert throttle.read(connection)[0].is_red


def test_an_error_leaves_the_session_usable(connection: Connection, clock: StillClock) -> None:
    """One throttler's error does not take the next one's answer away."""
    throttle = Throttle([Gauge("bad", None), Gauge("good", 0.1)], clock)
    bad, good = throttle.read(connection)
    assert (bad.is_red, good.is_red) == (True, False)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_reading_is_bounded_and_read_only(connection: Connection) -> None:
    """A question that hangs ends by itself, one that writes is refused, and the session's settings are as
    before.
    """
    with pytest.raises(psycopg.errors.QueryCanceled), bounded(connection, 0.05):
        connection.execute("SELECT pg_sleep(5)")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), bounded(connection, 1):
        connection.execute("CREATE TABLE public.written (a int)")
    row = connection.execute("SHOW statement_timeout").fetchone()
    assert row == ("0",)


def test_our_own_sessions_are_known_by_their_lock(database: str, connection: Connection) -> None:
    """Who holds our advisory lock in this database, and the session that asks, are ours; a name proves
    nothing.
    """
    with (
        Connector(dsn=database).open("worker") as worker,
        Connector(dsn=database).open("stranger") as stranger,
    ):
        hold_shared(worker)
        found = {r[0] for r in connection.execute(f"SELECT * FROM {OUR_PIDS} AS ours".encode()).fetchall()}
        assert found == {worker.info.backend_pid, connection.info.backend_pid}
        assert stranger.info.backend_pid not in found
