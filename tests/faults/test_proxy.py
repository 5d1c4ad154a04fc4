"""The proxy of the faults: it counts requests as PostgreSQL does, and each cut is
the one that its name says.
"""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from tests.faults.proxy import Cut, Proxy, Request, start_proxy
from tests.faults.site import dsn_of
from tests.servers import TestServer


class Script:
    """Notes the requests; the one that contains ``at`` is cut, once."""

    def __init__(self, at: bytes = b"-", cut: Cut = Cut.NOTHING) -> None:
        self.seen: list[Request] = []
        self._at, self._cut = at, cut

    def __call__(self, request: Request) -> Cut:
        self.seen.append(request)
        cut = self._cut if self._at in request.statement else Cut.NOTHING
        self._cut = Cut.NOTHING if cut is not Cut.NOTHING else self._cut
        return cut


def connect(proxy: Proxy, dsn: str) -> psycopg.Connection:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    return psycopg.connect(dsn_of(proxy.port, str(name)), application_name="through", autocommit=True)


def port_of(server: TestServer) -> int:
    return int(str(psycopg.conninfo.conninfo_to_dict(server.dsn)["port"]))


def rows(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM t").fetchone()
    assert row is not None
    return int(row[0])


def test_each_request_is_seen_once_with_its_session_and_process(server: TestServer, database: str) -> None:
    """A statement with parameters is several messages and one request; a block's COMMIT is one of its own."""
    script = Script()
    with start_proxy(port_of(server), script) as proxy, connect(proxy, database) as connection:
        connection.execute("CREATE TABLE t (n int)")
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (%s)", [1])
        pid = connection.info.backend_pid
    assert [r.text for r in script.seen] == [
        "CREATE TABLE t (n int)",
        "BEGIN",
        "INSERT INTO t VALUES ($1)",
        "COMMIT",
    ]
    assert [r.is_commit for r in script.seen] == [False, False, False, True]
    assert {(r.session, r.pid) for r in script.seen} == {("through", pid)}
    assert [r.number for r in script.seen] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("cut", "committed"), [(Cut.BEFORE, 0), (Cut.ANSWER, 1), (Cut.HALF_OPEN, 1), (Cut.SWALLOW, 0)]
)
def test_a_cut_commit_has_happened_or_not(
    server: TestServer, database: str, cut: Cut, committed: int
) -> None:
    """Between COMMIT and its answer: the client cannot know, and the name of the cut says what is so."""
    script = Script(b"COMMIT", cut)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n int)")
    with start_proxy(port_of(server), script) as proxy:
        connection = connect(proxy, database)
        with pytest.raises(psycopg.OperationalError), connection.transaction():
            connection.execute("INSERT INTO t VALUES (1)")
        connection.close()
        await_rows(database, committed)
    assert rows(database) == committed


def await_rows(dsn: str, number: int) -> None:
    """A half-open connection's commit may still be at work when the client has lost it."""
    deadline = time.monotonic() + 20
    while rows(dsn) != number and time.monotonic() < deadline:
        time.sleep(0.02)


def test_connections_are_refused_for_a_while(server: TestServer, database: str) -> None:
    """As while a server restarts; afterwards everything is as before."""
    with start_proxy(port_of(server)) as proxy:
        connection = connect(proxy, database)
        proxy.cut_all(refuse_s=3600)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
        with pytest.raises(psycopg.OperationalError):
            connect(proxy, database)
        proxy.cut_all()
        with connect(proxy, database) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)


def test_a_session_that_waits_for_its_answer_is_cut_at_once(server: TestServer, database: str) -> None:
    """A reset reaches it, though a thread of the proxy reads from its socket."""
    with start_proxy(port_of(server)) as proxy, connect(proxy, database) as connection:
        threading.Timer(0.3, proxy.cut_all).start()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(600)")  # pytest's timeout ends it where no reset comes
        connection.close()


def test_a_request_to_cancel_goes_through(server: TestServer, database: str) -> None:
    """It comes on a connection of its own, without a session."""
    with start_proxy(port_of(server)) as proxy, connect(proxy, database) as connection:
        connection.cancel_safe(timeout=20)
        assert connection.execute("SELECT 1").fetchone() == (1,)
