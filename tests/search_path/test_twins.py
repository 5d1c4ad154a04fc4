"""No function, operator, type or relation of the plan's schema is taken for pg_catalog's: twins of all are
made, none is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.conftest import dropped_after
from tests.desk import PLANS, WHOLE, Desk, open_desk, small_text
from tests.search_path.recorded import names_of, record_statements
from tests.search_path.twins import Names, Twins, names_in
from tests.servers import TestServer

NIGHT = (
    ("check",),
    ("run", "--through", "uniques", "--metrics-port", "0"),
    ("status",),
    ("run", "--approve", "swap"),
    ("verify",),
    ("report", "-o", "report.html"),
)


def whole_night(desk: Desk) -> None:
    """Each command that sends SQL, over the whole plan."""
    for command in NIGHT:
        said = desk.call(*command)
        assert said.code == 0, (command, said.all)


@pytest.fixture(scope="module")
def names(
    server: TestServer,
    new_database: Callable[[str | None], str],
    shop_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Names:
    """What all statements of the whole plan name without a schema."""
    with (
        record_statements() as sent,
        pytest.MonkeyPatch.context() as patch,
        dropped_after(server, new_database(shop_template)) as dsn,
    ):
        folder = tmp_path_factory.mktemp("recorded")
        patch.chdir(folder)
        with open_desk(dsn, folder, WHOLE) as desk:
            whole_night(desk)
    assert len(sent) > 200
    used = names_of(sent)
    by_author = names_in([(PLANS / "multi_tenant.sql").read_text()])  # finds its own by the plan's path
    return replace(used, functions=used.functions - by_author.functions)


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.timeout(600)
def test_no_twin_is_called(
    names: Names,
    server: TestServer,
    new_database: Callable[[str | None], str],
    shop_template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_first: bool,
) -> None:
    """A role that may create in the plan's schema gets nothing executed by the runner, also where role or
    database put that schema first.
    """
    monkeypatch.chdir(tmp_path)
    with (
        dropped_after(server, new_database(shop_template)) as dsn,
        psycopg.connect(dsn, autocommit=True) as admin,
    ):
        twins = Twins(admin, "public", exact=is_first)
        twins.make(names)
        assert twins.made > 500
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("ALTER DATABASE {} SET track_functions = 'all'").format(name))
        if is_first:
            admin.execute(sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog").format(name))
        with open_desk(dsn, tmp_path, small_text()) as desk:
            whole_night(desk)
        assert twins.called() == []


def test_a_twin_that_is_called_is_found(database: str) -> None:
    """The proof can fail: with the plan's schema on the path, the twin is what is called."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET track_functions = 'all'")
        query = "SELECT pg_relation_size(oid) FROM pg_class WHERE relname = 'pg_class'"
        twins = Twins(connection, "public")
        twins.make(names_in([query]))
        with pytest.raises(psycopg.errors.RaiseException, match="a twin of pg_relation_size was called"):
            connection.execute(query)
        assert twins.called() == ["pg_relation_size"]
