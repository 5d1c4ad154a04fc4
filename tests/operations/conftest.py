"""What the operations' tests share: a run on the filled shop, and roles that are dropped afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.operations.site import Site, open_site
from tests.servers import TestServer

OpenSite = Callable[..., Site]


@pytest.fixture
def site_of(shop: str) -> Iterator[OpenSite]:
    """Open a run of a plan on this test's shop, and end the one before; its arguments are those of
    ``open_site`` after the DSN.
    """
    with ExitStack() as stack:

        def open_(text: str, **options: Any) -> Site:
            stack.close()  # one runner per database
            return stack.enter_context(open_site(shop, text, **options))

        yield open_


@pytest.fixture
def new_role(server: TestServer) -> Iterator[Callable[[str], str]]:
    """Make a role; ask for this fixture before ``shop``, so that the roles outlive what they own."""
    made: list[str] = []
    with psycopg.connect(server.dsn, autocommit=True) as connection:

        def create(name: str) -> str:
            full = f"om_test_{os.getpid()}_{name}"
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(full)))
            made.append(full)
            return full

        yield create
        for name in reversed(made):
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
