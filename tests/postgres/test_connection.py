"""Who lets us in, and whom we talk to."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from psycopg.conninfo import make_conninfo

from online_migrate.errors import PreflightFailed
from online_migrate.postgres.connection import (
    Connector,
    NoServer,
    ensure_direct,
    ensure_supported,
    version_text,
)
from tests.backfill.throttlers.standby import Pair, start_pair


@pytest.mark.parametrize("version", [130020, 140000, 140003])
def test_a_server_older_than_14_4_is_refused(version: int) -> None:
    """14.0 to 14.3 corrupt concurrently built indexes under heap-only pruning."""
    with pytest.raises(PreflightFailed, match=f"PostgreSQL {version_text(version)}; 14.4 is the oldest"):
        ensure_supported(version)


@pytest.mark.parametrize("version", [140004, 140020, 150000, 180001])
def test_a_server_from_14_4_on_is_supported(version: int) -> None:
    """Nothing newer is refused by its number."""
    ensure_supported(version)


def test_a_pooler_is_known_by_the_process_that_answers() -> None:
    """A pooler hands out a process id of its own: advisory locks and settings would belong to the client that
    comes next.
    """
    ensure_direct(4711, 4711)
    with pytest.raises(PreflightFailed, match="4712, the pooler had said 4711") as caught:
        ensure_direct(4711, 4712)
    assert "straight to PostgreSQL" in caught.value.remedy


def test_a_transaction_is_one_threads_turn(database: str) -> None:
    """Another thread's statement waits until it is over: it would see what is rolled back, under settings
    that it did not make.
    """
    with Connector(dsn=database).open("test") as connection, ThreadPoolExecutor() as pool:
        with connection.transaction(force_rollback=True):
            connection.execute("CREATE TABLE public.only_inside (); SET LOCAL statement_timeout = '2s'")
            other = pool.submit(
                lambda: connection.execute(
                    "SELECT to_regclass('public.only_inside'), current_setting('statement_timeout')"
                ).fetchone()
            )
            with pytest.raises(TimeoutError):
                other.result(timeout=0.3)
        assert other.result(timeout=5) == (None, "0")


SETTINGS = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def test_a_cut_network_is_noticed_from_both_sides(database: str) -> None:
    """Idle or with something not yet acknowledged, on our side and on the server's: within 30 s and not a
    quarter of an hour.
    """
    with Connector(dsn=database).open("test") as connection:
        for name, value in SETTINGS.items():
            row = connection.execute(f"SHOW {name}".encode()).fetchone()
            assert row == (value,)
        ours = socket.socket(fileno=connection.fileno())
        try:
            (milliseconds,) = struct.unpack(
                "I", ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4)
            )
            assert milliseconds == 30_000
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        finally:
            ours.detach()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with start_pair({"hot_standby": "on"}) as pair:
        yield pair


def test_a_standby_is_told_at_once(pair: Pair) -> None:
    """Not by the first write's 'read-only transaction', which a failover says too: exit 8, and what to put
    into the DSN.
    """
    with pytest.raises(NoServer, match="is a standby") as caught:
        Connector(dsn=pair.standby.dsn).open("check")
    assert caught.value.exit_code == 8
    assert "target_session_attrs=read-write" in caught.value.remedy
    with Connector(dsn=pair.standby.dsn).open("status", may_be_standby=True) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


def test_a_role_whose_default_is_read_only_writes(database: str) -> None:
    """So 25006 has one meaning: the server was demoted under us."""
    dsn = make_conninfo(database, options="-c default_transaction_read_only=on")
    with Connector(dsn=dsn).open("test") as connection:
        connection.execute("CREATE TABLE public.written ()")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::date", "-infinity"),
        ("'0044-03-15 12:00:00 BC'::timestamp", "0044-03-15 12:00:00 BC"),
        ("'12026-01-01'::date", "12026-01-01"),
        ("'24:00:00'::time", "24:00:00"),
        ("'178000000 years'::interval", "178000000 years"),
        ("'2026-01-31 12:00:00'::timestamp", datetime(2026, 1, 31, 12)),  # noqa: DTZ001 - of a timestamp
    ],
)
def test_values_that_python_has_not_are_read_as_text(database: str, value: str, text: object) -> None:
    """No reading of the program fails because a row has such a value."""
    with Connector(dsn=database).open("test") as connection:
        row = connection.execute(f"SELECT {value}".encode()).fetchone()
    assert row == (text,)
