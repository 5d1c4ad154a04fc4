"""Three grown databases: a template each for the session, a copy for each test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import sql

from tests.cases.conftest import make_role, role_name, with_roles
from tests.cases.trial import Trial
from tests.conftest import dropped_after
from tests.desk import Desk
from tests.servers import TestServer

FOLDER: Final = Path(__file__).parent
NAMES: Final = ("shop", "crm", "erp")


@pytest.fixture(scope="session")
def template_of(
    server: TestServer, new_database: Callable[[str | None], str]
) -> Iterator[Callable[[str], str]]:
    """The name of a database that holds the schema of that name, with its rows; it must have no session."""
    made: dict[str, str] = {}
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(server.dsn, autocommit=True))

        def load(name: str) -> str:
            if name not in made:
                text = (FOLDER / name / "schema.sql").read_text()
                text = re.sub(r"\bom_role_(?!space)", f"om_role_{name}_", text)
                for short in dict.fromkeys(re.findall(r"\bom_role_(?!space)(\w+)", text)):
                    make_role(admin, stack, role_name(short))
                make_tablespace(admin, stack, role_name(f"space_{name}"))
                database = new_database(None)
                dsn = stack.enter_context(dropped_after(server, database))
                with psycopg.connect(dsn, autocommit=True) as connection:
                    connection.execute(with_roles(text).encode())
                made[name] = database
            return made[name]

        yield load


def make_tablespace(admin: psycopg.Connection, stack: ExitStack, name: str) -> None:
    """A tablespace in the server's data folder; dropped after the database that has a table in it."""
    space = sql.Identifier(name)
    admin.execute("SET allow_in_place_tablespaces = on")
    admin.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(space))
    stack.callback(lambda: admin.execute(sql.SQL("DROP TABLESPACE {}").format(space)))


@pytest.fixture
def grown(
    server: TestServer,
    new_database: Callable[[str | None], str],
    template_of: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], Trial]]:
    """A copy of the schema of that name, and a folder with its plan."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def open_(name: str) -> Trial:
            for file in (FOLDER / name).iterdir():
                if file.name != "schema.sql":
                    (tmp_path / file.name).write_text(file.read_text())
            dsn = stack.enter_context(dropped_after(server, new_database(template_of(name))))
            desk = Desk(folder=tmp_path, dsn=dsn)
            return Trial(desk=desk, admin=desk)

        yield open_
