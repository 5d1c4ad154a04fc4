"""What the cases share: a trial per case."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.cases.trial import Case, Trial
from tests.conftest import dropped_after
from tests.desk import Desk
from tests.servers import TestServer

OpenTrial = Callable[[Case], Trial]

NUMBERS: Final = count(1)
PASSWORD: Final = "made-up"


def role_name(short: str) -> str:
    """Roles belong to the server: a name of this test run's own."""
    return f"om_test_{os.getpid()}_{short}"


def with_roles(text: str) -> str:
    return re.sub(r"\bom_role_(\w+)", lambda match: role_name(match.group(1)), text)


@pytest.fixture
def trial_of(server: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenTrial]:
    """Set a case up: its roles, its database, its folder."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(server.dsn, autocommit=True))

        def open_(case: Case) -> Trial:
            for short in dict.fromkeys(re.findall(r"\bom_role_(\w+)", case.setup + case.role)):
                make_role(admin, stack, role_name(short))
            name = f"om_test_{os.getpid()}_case_{next(NUMBERS)}"
            make_database(admin, name, case.encoding)
            dsn = stack.enter_context(dropped_after(server, name))
            with psycopg.connect(dsn, autocommit=True, client_encoding="UTF8") as connection:
                connection.execute(with_roles(case.setup).replace("om_database", name).encode())
            for file, text in {"plan.yaml": case.plan, **case.files}.items():
                (tmp_path / file).write_text(text)
            desk = Desk(folder=tmp_path, dsn=dsn)
            ours = make_conninfo(dsn, user=with_roles(case.role), password=PASSWORD) if case.role else dsn
            stack.callback(lambda: end_all(desk))
            return Trial(desk=replace(desk, dsn=ours), admin=desk)

        yield open_


def end_all(desk: Desk) -> None:
    for child in desk.children:
        child.end()


def make_role(admin: psycopg.Connection, stack: ExitStack, name: str) -> None:
    """A role that may log in and nothing else; dropped after the database in which it owns things."""
    role = sql.Identifier(name)
    admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(PASSWORD)))
    stack.callback(lambda: admin.execute(sql.SQL("DROP ROLE {}").format(role)))


def make_database(admin: psycopg.Connection, name: str, encoding: str) -> None:
    query = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'")
    admin.execute(query.format(sql.Identifier(name), sql.Literal(encoding)))
