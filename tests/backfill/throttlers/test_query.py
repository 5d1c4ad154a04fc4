"""The throttler that asks the operator's own query."""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.backfill.throttlers.base import Throttle
from online_migrate.backfill.throttlers.query import Query
from online_migrate.clock import SystemClock
from online_migrate.postgres.connection import Connection


def make_query(text: str, limit: float | None = None, timeout_s: float = 1.0) -> Query:
    return Query(name="queue", text=text, limit=limit, timeout_s=timeout_s)


def test_a_number_holds_us_from_its_limit_on(connection: Connection) -> None:
    """Five jobs in a queue of the operator's are red at a limit of five, with both
    figures; fewer are green.
    """
    connection.execute("CREATE TABLE public.jobs AS SELECT generate_series(1, 4) AS id")
    throttle = Throttle([make_query("SELECT count(*) FROM public.jobs", limit=5)], SystemClock(), every_s=0)
    assert not throttle.read(connection)[0].is_red
    connection.execute("INSERT INTO public.jobs VALUES (5)")
    reading = throttle.read(connection)[0]
    assert (reading.is_red, reading.reason) == (True, "query_queue is 5 (limit 5)")
    connection.execute("DELETE FROM public.jobs WHERE id > 4")
    assert not throttle.read(connection)[0].is_red


def test_a_truth_holds_us_while_it_is_true(connection: Connection) -> None:
    """A switch in a table of the operator's stops us and lets us go."""
    connection.execute("CREATE TABLE public.night AS SELECT true AS is_on")
    throttle = Throttle([make_query("SELECT is_on FROM public.night")], SystemClock(), every_s=0)
    assert throttle.read(connection)[0].is_red
    connection.execute("UPDATE public.night SET is_on = false")
    assert not throttle.read(connection)[0].is_red


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            "SELECT NULL::int",
            "correct query_queue: the query returned None, which is neither a number nor a boolean",
        ),
        (
            "SELECT 'NaN'::float8",
            "correct query_queue: the query returned nan, which is neither a number nor a boolean",
        ),
        (
            "SELECT 'NaN'::numeric",
            "correct query_queue: the query returned Decimal('NaN'), which is neither a number nor a boolean",
        ),
        (
            "SELECT 'many'",
            "correct query_queue: the query returned 'many', which is neither a number nor a boolean",
        ),
        ("SELECT 1 WHERE false", "correct query_queue: the query must return one row with one column"),
        (
            "SELECT generate_series(1, 2)",
            "correct query_queue: the query must return one row with one column",
        ),
        ("SELECT 1, 2", "correct query_queue: the query must return one row with one column"),
        (
            "SELECT pg_sleep(5)",
            "make query_queue faster: it takes longer than its timeout of 100 ms",
        ),
    ],
)
def test_no_answer_is_red_and_found_at_check(connection: Connection, text: str, remedy: str) -> None:
    """NULL, NaN, no row or no end never read as health; check says what to correct before anything runs."""
    query = make_query(text, limit=5, timeout_s=0.1)
    assert query.blind(connection) == remedy
    assert Throttle([query], SystemClock()).read(connection)[0].is_red


def test_a_number_needs_a_limit(connection: Connection) -> None:
    """A number alone says nothing: check asks for the limit."""
    assert make_query("SELECT 7").blind(connection) == (
        "correct query_queue: the query returned the number 7, and the plan sets no `limit` for it"
    )
    assert make_query("SELECT 7.5", limit=10).blind(connection) is None


def test_it_cannot_write(connection: Connection) -> None:
    """A query that would change something is refused by the server, and found at check."""
    query = make_query("CREATE TABLE public.written AS SELECT 1")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        query.read(connection)
    assert query.blind(connection) == (
        "correct query_queue: cannot execute CREATE TABLE AS in a read-only transaction"
    )


def test_a_percent_sign_is_only_that(connection: Connection) -> None:
    """The text is the operator's SQL, sent as it is."""
    assert make_query("SELECT 'a' LIKE '%a%'").read(connection).utilisation == 1
