"""A streaming standby beside a test's own server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import psycopg

from benchmarks import standby
from benchmarks.standby import Pair, ask, await_true, run
from tests.servers import start_own_server

__all__ = ["Pair", "ask", "await_true", "run", "start_pair", "write_wal"]


@contextmanager
def start_pair(settings: Mapping[str, str] | None = None) -> Iterator[Pair]:
    """Start a primary with ``settings`` and a standby that streams from it."""
    with standby.start_pair(partial(start_own_server, settings)) as pair:
        yield pair


def write_wal(connection: psycopg.Connection, number: int) -> None:
    """Write so many bytes of WAL, and let them be flushed."""
    connection.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', %s))", [number])
