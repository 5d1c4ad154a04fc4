"""No deadlock has the application as its victim, however its transactions fall together with our windows."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from online_migrate.errors import LockNotAcquired
from online_migrate.postgres.locks import LockMode, LockNeed
from tests.locks.beside import Site, ddl, in_thread, need, pause, sessions_on, site_on

STEPS = (
    "SELECT v FROM public.child WHERE id = {row}",
    "UPDATE public.child SET v = v + 1 WHERE id = {row}",
    "UPDATE public.parent SET note = 'q' WHERE id = {row}",
    "SELECT 1 FROM public.parent WHERE id = {row} FOR KEY SHARE",
    "INSERT INTO public.child (id, parent_id) VALUES (nextval('public.ids'), 3)",
    "SELECT count(*) FROM public.parent",
)
"""what the application's transactions are made of, in any order; each client has a row of its own, so that
any deadlock has a window in it
"""
BOTH = (LockMode.ACCESS_EXCLUSIVE, LockMode.SHARE_ROW_EXCLUSIVE)
WINDOWS = tuple(
    [need(first, mode), need(second, other)]
    for first, second in (("child", "parent"), ("parent", "child"))
    for mode in BOTH
    for other in BOTH
)
TRANSACTIONS = st.lists(
    st.tuples(st.sampled_from(range(len(STEPS))), st.integers(0, 60)), min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def shared(server: object, new_database: object) -> Iterator[Site]:
    """One database for all interleavings: each begins and ends with nothing open."""
    from tests.conftest import dropped_after

    with dropped_after(server, new_database(None)) as dsn, site_on(dsn) as site:  # type: ignore[operator,arg-type]
        site.watch.execute("CREATE SEQUENCE public.ids START 100000")
        yield site


def transact(
    dsn: str, row: int, steps: list[tuple[int, int]], errors: list[str], over: threading.Event
) -> None:
    """The application's transaction, over and over while the window lasts: steps
    with pauses in between (ms).
    """
    with psycopg.connect(dsn, application_name="shop") as connection:
        while True:
            try:
                for step, pause_ms in steps:
                    connection.execute(STEPS[step].format(row=row).encode())
                    pause(pause_ms / 1000)
                connection.commit()
            except psycopg.Error as error:
                errors.append(f"{error.sqlstate} {error}")
                connection.rollback()
            if over.is_set():
                return


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(first=TRANSACTIONS, second=TRANSACTIONS, needs=st.sampled_from(WINDOWS))
def test_no_deadlock_has_the_application_as_its_victim(
    shared: Site, first: list[tuple[int, int]], second: list[tuple[int, int]], needs: list[LockNeed]
) -> None:
    """Two clients in any order of steps, a window over both tables in any order of locks: they get no 40P01,
    no error at all.
    """
    errors: list[str] = []
    over = threading.Event()
    with (
        sessions_on(shared.dsn) as site,
        in_thread(lambda: transact(site.dsn, 7, first, errors, over)),
        in_thread(lambda: transact(site.dsn, 8, second, errors, over)),
    ):
        pause(0.01)
        try:
            site.window(attempts=6, blocker_age_s=60.0, lock_wait_s=2.0).run(needs, ddl("SELECT 1"))
        except LockNotAcquired:
            pass
        finally:
            over.set()
    assert errors == []
