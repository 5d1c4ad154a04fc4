"""The copies of a rehearsal: their transaction may be given up between any two of its statements."""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.postgres.catalog import Catalog, TableInfo
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.sample_rows import copy_rows
from online_migrate.postgres.stand_ins import StandIns


class _OutOfTimeError(Exception):
    """What the caller raises."""


def _copy(copies: StandIns, table: TableInfo) -> None:
    with copies.opened():
        copies.create([table.name])
        copy_rows(copies, table, [])


@pytest.mark.parametrize("statements", [0, 1, 2])
def test_copies_are_given_up_between_two_statements(database: str, statements: int) -> None:
    """A table may need dozens of reads: the caller's limit holds before each of them, and nothing is left."""
    left = statements

    def ensure_time() -> None:
        nonlocal left
        if left == 0:
            raise _OutOfTimeError
        left -= 1

    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE TABLE public.t AS SELECT g AS id FROM generate_series(1, 10) g")
    with Connector(dsn=database).open("test") as connection:
        table = Catalog(connection).table("t")
        assert table is not None
        copies = StandIns(connection, schema="public", ensure_time=ensure_time)
        with pytest.raises(_OutOfTimeError):
            _copy(copies, table)
        row = connection.execute("SELECT to_regnamespace(%s)", [copies.copies]).fetchone()
        assert row == (None,)
        assert connection.info.transaction_status.name == "IDLE"
