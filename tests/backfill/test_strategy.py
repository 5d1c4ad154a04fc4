"""How a table is walked follows from the table, and a batch is a TID range scan."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from benchmarks.workbench import workbench
from online_migrate.backfill.batch import Writer
from online_migrate.backfill.chunks import Position, next_slice
from online_migrate.backfill.context import Target
from online_migrate.backfill.strategy import (
    CHUNK_PAGES,
    decide_chunk_pages,
    decide_strategy,
    index_with,
    most_chunk_pages,
)
from online_migrate.backfill.values import Constant, FromParent, Join
from tests.backfill.tables import do, make_table, session, table_info


@pytest.mark.parametrize(
    ("filler", "least", "most"),
    [
        pytest.param(10, 16, 16, id="slim rows"),
        pytest.param(900, 7, 9, id="900-byte rows"),
        pytest.param(3900, 1, 2, id="huge rows"),
    ],
)
def test_stripes_follow_from_the_rows_on_a_page(database: str, filler: int, least: int, most: int) -> None:
    """There are never more stripes than a page has rows: each stripe must find one."""
    make_table(database, 2_000, filler=filler)
    with session(database) as connection:
        strategy = decide_strategy(connection, table_info(connection), "c")
    assert strategy.pass_name == "interleaved"
    assert least <= strategy.walk.stripes <= most
    assert f"{strategy.walk.stripes} stripes" in strategy.reason


def test_rows_are_counted_where_there_are_some(database: str) -> None:
    """A table whose beginning was deleted is not taken for one of a row a page."""
    make_table(database, 20_000)
    do(database, "DELETE FROM t WHERE id < 6000", "VACUUM t")
    with session(database) as connection:
        assert decide_strategy(connection, table_info(connection), "c").walk.stripes == 16


@pytest.mark.parametrize(
    "index",
    ["(c)", "(v) INCLUDE (c)", "(v) WHERE c IS NULL", "((c + 1))"],
)
def test_an_index_that_holds_the_column_forbids_stripes(database: str, index: str) -> None:
    """No update of an indexed column is heap-only: one stripe, and the reason names the index."""
    make_table(database, 1_000, more=f"CREATE INDEX on_c ON t {index}")
    with session(database) as connection:
        table = table_info(connection)
        strategy = decide_strategy(connection, table, "c")
    assert index_with(table, "c") == "on_c"
    assert (strategy.pass_name, strategy.walk.stripes) == ("sequential", 1)
    assert "on_c" in strategy.reason


@pytest.mark.parametrize("index", ["(c)", "((c + 1))", "(v) WHERE c IS NULL"])
def test_a_brin_index_forbids_stripes_before_16_only(database: str, index: str) -> None:
    """The walk follows what the server does: from 16 on an update of its columns may be heap-only."""
    make_table(
        database,
        1_000,
        more=f"ALTER TABLE t SET (fillfactor = 50); CREATE INDEX on_c ON t USING brin {index}",
    )
    do(database, "VACUUM FULL t")
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE t SET c = 1 WHERE id % 5 = 0")
        row = connection.execute("SELECT pg_stat_get_xact_tuples_hot_updated('t'::regclass) > 0").fetchone()
        assert row is not None
        connection.rollback()
    with session(database) as connection:
        strategy = decide_strategy(connection, table_info(connection), "c")
        assert row[0] is (connection.info.server_version >= 160000)
    assert (strategy.pass_name == "interleaved") is row[0]


def test_an_index_whose_name_has_the_column_s_is_none_that_holds_it(database: str) -> None:
    """`t_c_idx` on another column costs no heap-only update."""
    make_table(database, 100, more="CREATE INDEX c ON t (v)")
    with session(database) as connection:
        assert index_with(table_info(connection), "c") is None


def test_a_table_of_some_pages_is_walked_once(database: str) -> None:
    """Sixteen transactions for one page would only take longer."""
    make_table(database, 300)
    with session(database) as connection:
        strategy = decide_strategy(connection, table_info(connection), "c")
    assert strategy.walk.stripes == 1
    assert "so one stripe" in strategy.reason


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_of_none_and_of_one_row(database: str, rows: int) -> None:
    """Nothing is divided by zero, and there is one stripe at least."""
    make_table(database, rows)
    with session(database) as connection:
        strategy = decide_strategy(connection, table_info(connection), "c")
    assert strategy.walk.pages_total == rows
    assert strategy.walk.stripes == 1


@pytest.mark.parametrize("indexed", [False, True], ids=["interleaved", "index on the column"])
@pytest.mark.parametrize("skip_locked", [False, True], ids=["plain", "skip locked"])
@pytest.mark.parametrize("rows", [300, 40_000], ids=["small", "large"])
def test_a_batch_is_a_tid_range_scan(database: str, indexed: bool, skip_locked: bool, rows: int) -> None:
    """Whatever the table's size, its statistics and its indexes: a batch reads its pages and no others."""
    make_table(database, rows, more="CREATE INDEX ON t (c)" if indexed else "")
    with workbench(database, "t") as context:
        target = Target(table=table_info(context.work), column="c", value=Constant.of(1))
        part = next_slice(decide_strategy(context.work, target.table, "c").walk, Position(), 4)
        assert part is not None
        update = target.update(part.condition, skip_locked=skip_locked)
        context.work.execute(Writer(context, target)._settings())
        plan = "\n".join(r[0] for r in context.work.execute(sql.SQL("EXPLAIN (COSTS OFF) {}").format(update)))
    assert "Tid Range Scan on t" in plan
    assert "Seq Scan" not in plan
    assert "Index" not in plan
    assert ("LockRows" in plan) is skip_locked


def test_a_parent_s_value_is_looked_up_by_its_key(database: str) -> None:
    """The settings that keep a batch on its pages must not have it scan the parent for every row."""
    make_table(database, 2_000)
    make_table(database, 20_000, name="users")
    value = FromParent(schema="public", joins=(Join(table="users", on="user_id", column="v"),))
    with workbench(database, "t") as context:
        target = Target(table=table_info(context.work), column="c", value=value)
        update = target.update(sql.SQL("ctid >= '(0,0)' AND ctid < '(4,0)'"))
        context.work.execute(Writer(context, target)._settings())
        plan = "\n".join(r[0] for r in context.work.execute(sql.SQL("EXPLAIN (COSTS OFF) {}").format(update)))
    assert "Tid Range Scan on t" in plan
    assert "Index Scan using users_pkey on users" in plan
    assert "Seq Scan" not in plan


def test_a_chunk_is_as_long_as_the_oldest_snapshot_asks() -> None:
    """A page is visited again after twice the age of the oldest snapshot seen, within memory, never sooner
    than usual.
    """
    assert decide_chunk_pages(page_s=1e-4, oldest_s=5.0, most=1_000_000) == 100_000
    assert decide_chunk_pages(page_s=1e-4, oldest_s=0.0, most=1_000_000) == CHUNK_PAGES
    assert decide_chunk_pages(page_s=1e-4, oldest_s=500.0, most=50_000) == 50_000
    assert decide_chunk_pages(page_s=1e-4, oldest_s=0.0, most=100) == 100


def test_a_chunk_fits_into_memory(database: str) -> None:
    """A quarter of shared_buffers: the test server has 256 MB."""
    with session(database) as connection:
        buffers = connection.execute(
            "SELECT setting::int FROM pg_settings WHERE name = 'shared_buffers'"
        ).fetchone()
        assert buffers is not None
        assert most_chunk_pages(connection) == buffers[0] // 4
