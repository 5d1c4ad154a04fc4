"""Who writes a table: ours apart, and first those statements that can write the column."""

from __future__ import annotations

import pytest

from online_migrate.backfill.context import MARK
from online_migrate.backfill.writing import read_calls, statements_since
from tests.backfill.tables import do, make_table, session
from tests.backfill.test_exact import create_statements


def test_a_rare_statement_that_can_write_the_column_comes_first() -> None:
    """Hot statements that do not touch it would crowd it out of the three that are shown."""
    hot = {f"UPDATE t SET v = v + $1 WHERE n = {n}": 1_000 + n for n in range(5)}
    now = {**hot, "INSERT INTO t (v) VALUES ($1)": 500, "UPDATE t SET c = $1 WHERE id = $2": 2}
    assert statements_since({}, now, "c")[0] == "UPDATE t SET c = $1 WHERE id = $2"
    assert statements_since(now, now, "c") == ()


@pytest.mark.parametrize(
    "rare",
    [
        "INSERT INTO t VALUES (NULL)",
        "INSERT INTO public.t SELECT n FROM others",
        "COPY t FROM STDIN",
        'UPDATE "t" SET "c" = NULL',
        "MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET c = s.c",
    ],
)
def test_what_can_write_the_column(rare: str) -> None:
    """It names it, or no columns at all."""
    assert statements_since({}, {"UPDATE t SET v = 1": 9, rare: 1}, "c")[0].startswith(rare[:6])


def test_ours_are_told_from_the_application_s(database: str) -> None:
    """By their mark, not by what they read: the application may use ctid too, and comments of its own."""
    make_table(database, 10)
    assert create_statements(database), "the tests' server loads it"
    do(
        database,
        f"UPDATE {MARK} ONLY t SET c = 1 WHERE id IN (1)",
        "UPDATE t SET c = NULL WHERE ctid = '(0,1)'",
        "UPDATE /* shop:orders */ t SET c = NULL WHERE id = 2",
        "SELECT count(*) FROM t",
    )
    with session(database) as connection:
        found = sorted(query for query in read_calls(connection, "t") if query.startswith("UPDATE"))
    assert found == [
        "UPDATE /* shop:orders */ t SET c = $1 WHERE id = $2",
        "UPDATE t SET c = $1 WHERE ctid = $2",
    ]
