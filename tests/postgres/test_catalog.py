"""What the catalog says, where its columns do not mean what their names promise."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from online_migrate.postgres import server as launcher
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.server import Server
from tests.servers import start_own_server


@pytest.fixture(scope="module")
def newest() -> Iterator[Server]:
    """The server of the wheel: 18 or newer."""
    wheel = launcher._find_wheel()
    assert wheel is not None, "the extra test installs it"
    with start_own_server(bin_dir=wheel) as server:
        yield server


def test_a_not_null_that_is_not_valid_is_none(newest: Server) -> None:
    """From 18 on attnotnull is true for NOT NULL … NOT VALID as well, and old rows are NULL behind it."""
    with psycopg.connect(newest.dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE public.orders (id int PRIMARY KEY, bot_id int); INSERT INTO public.orders VALUES"
            " (1)"
        )
        connection.execute("ALTER TABLE public.orders ADD CONSTRAINT has_bot NOT NULL bot_id NOT VALID")
    with Connector(dsn=newest.dsn).open("test") as connection:
        table = Catalog(connection).table("orders")
        assert table is not None
        assert not table.columns["bot_id"].is_not_null
        assert table.columns["id"].is_not_null
        connection.execute(
            "UPDATE public.orders SET bot_id = 1; ALTER TABLE public.orders VALIDATE CONSTRAINT has_bot"
        )
        valid = Catalog(connection).table("orders")
        assert valid is not None
        assert valid.columns["bot_id"].is_not_null


def test_heirs_are_found_on_every_level(database: str) -> None:
    """Partitions of partitions, in whatever schema; a table by itself has none."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA old; CREATE TABLE public.orders (id int) PARTITION BY RANGE (id);"
            " CREATE TABLE public.near PARTITION OF public.orders FOR VALUES FROM (1) TO (9) PARTITION BY"
            " LIST (id);"
            " CREATE TABLE old.far PARTITION OF public.near DEFAULT"
        )
    with Connector(dsn=database).open("test") as connection:
        catalog = Catalog(connection)
        orders, near = catalog.table("orders"), catalog.table("near")
    assert orders is not None
    assert near is not None
    assert orders.descendants == (("public", "near"), ("old", "far"))
    assert near.descendants == (("old", "far"),)
