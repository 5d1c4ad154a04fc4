"""analyze: the planner knows the new column."""

from __future__ import annotations

from tests.operations.cases import FILLED_COLUMN
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of


def test_the_planner_learns_what_the_column_holds(site_of: OpenSite) -> None:
    """Before it the planner knows nothing of bot_id and guesses; after it there are statistics."""
    site = site_of(plan_of("analyze: {table: transactions}"))
    site.sql(FILLED_COLUMN)
    statistics = "SELECT n_distinct FROM pg_stats WHERE tablename = 'transactions' AND attname = 'bot_id'"
    assert site.sql(statistics) == []
    site.execute()
    assert site.sql(statistics) == [(1.0,)]
