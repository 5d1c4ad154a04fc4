"""A constant for a column that does not exist yet needs no row to be written: check offers it, the plan may
take it.
"""

from __future__ import annotations

import pytest

from online_migrate.errors import PlanError
from tests.backfill.plans import findings_of, plan_of, run_plan
from tests.backfill.tables import ask, do

ADD = "add_column: {table: t, column: c, type: integer, new_rows: 7}"
INSTANT = "add_column: {table: t, column: c, type: integer, new_rows: 7, instant: true}"
FILL = "backfill: {table: t, column: c, value: 7}"


@pytest.fixture
def table(database: str) -> str:
    """5,000 rows without the column."""
    do(
        database,
        "CREATE TABLE t (id integer PRIMARY KEY)",
        "INSERT INTO t SELECT generate_series(1, 5000)",
        "VACUUM ANALYZE t",
    )
    return database


def test_check_offers_it_with_what_it_would_save(table: str) -> None:
    """The same end at no cost, reported beside the forecast of the batches; not where it is taken already."""
    found = findings_of(table, ADD, FILL)
    assert "`instant: true`" in found["instant"].remedy
    assert "5,000 rows" in found["forecast"].fact
    assert "instant" not in findings_of(table, INSTANT, FILL)


def test_it_is_not_offered_where_rows_differ(table: str) -> None:
    """A derived value, or a column that already exists, needs its rows written."""
    assert "instant" not in findings_of(table, ADD, "backfill: {table: t, column: c, value: {sql: id * 2}}")
    do(table, "ALTER TABLE t ADD c integer DEFAULT 7")
    assert "instant" not in findings_of(table, ADD, FILL)


def test_no_row_is_written(table: str) -> None:
    """Every old row has its value, the table's pages are as they were, and the
    backfill finds nothing to do.
    """
    before = ask(table, "SELECT pg_relation_size('t')")
    events = run_plan(table, INSTANT, FILL)
    assert ask(table, "SELECT count(*) FROM t WHERE c = 7") == 5_000
    assert ask(table, "SELECT pg_relation_size('t')") == before
    assert (
        ask(
            table, "SELECT count(*) FROM t WHERE xmin::text::bigint = (SELECT min(xmin::text::bigint) FROM t)"
        )
        == 5_000
    )
    assert not [e for e in events if e.name == "batch_done"]


def test_without_it_old_rows_wait_for_their_batch(table: str) -> None:
    """The default of new rows does not count for old ones: that is what keeps the window instant, whatever
    the value.
    """
    run_plan(table, ADD)
    assert ask(table, "SELECT count(*) FROM t WHERE c IS NULL") == 5_000


def test_it_needs_a_value() -> None:
    """Without new_rows there is nothing that could be instant."""
    with pytest.raises(PlanError, match="needs new_rows"):
        plan_of("add_column: {table: t, column: c, type: integer, instant: true}")
