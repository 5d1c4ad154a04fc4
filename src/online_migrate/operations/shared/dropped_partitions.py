"""Partitions that are detached or dropped while a step on their root is at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from online_migrate.errors import OnlineMigrateError
from online_migrate.operations.contract.base import Place
from online_migrate.postgres.sqlstate import is_connection_lost


@contextmanager
def unless_dropped(root: Place, names: tuple[str, str]) -> Iterator[None]:
    """Ignore an error about the partition (schema, name) if it is below ``root`` no more."""
    try:
        yield
    except (psycopg.Error, OnlineMigrateError) as error:
        is_lost = isinstance(error, psycopg.Error) and is_connection_lost(error)
        if is_lost or names in {p.names for p in root.partitions()}:
            raise
