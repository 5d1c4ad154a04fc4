"""The choice of the tests' server, and the account of what did not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.servers import ALL_VARIABLE, DSN_VARIABLE, SHOP_USERS, TestServer, choose_server, start_container

ROOT = Path(__file__).parent.parent


def test_a_dsn_from_the_environment_wins(server: TestServer) -> None:
    """A server that is named is used, even if a container engine answers."""
    choice = choose_server({DSN_VARIABLE: server.dsn}, engine_answers=lambda: True)
    assert choice.name == "environment"
    assert server.version in str(choice)
    with choice.start() as chosen:
        assert (chosen.dsn, chosen.version) == (server.dsn, server.version)


def test_a_dsn_that_fails_is_never_replaced_in_silence() -> None:
    """A wrong DSN is an error, not a quiet run on another server."""
    with pytest.raises(psycopg.OperationalError):
        choose_server({DSN_VARIABLE: "host=127.0.0.1 port=1 dbname=nowhere"}, engine_answers=lambda: True)


def test_an_engine_that_answers_comes_before_the_embedded_server() -> None:
    """With a container engine the tests run on a real distribution of PostgreSQL."""
    choice = choose_server({}, engine_answers=lambda: True)
    assert (choice.name, choice.start) == ("testcontainers", start_container)


def test_without_dsn_and_engine_the_embedded_server_is_taken() -> None:
    """PyPI alone is enough to run the tests."""
    choice = choose_server({DSN_VARIABLE: ""}, engine_answers=lambda: False)
    assert choice.name == "embedded"
    assert "PostgreSQL" in str(choice)


@pytest.mark.engine
def test_testcontainers_gives_a_working_server() -> None:
    """The middle branch of the choice works where an engine does: settings, version and superuser as
    elsewhere.
    """
    with start_container() as container, psycopg.connect(container.dsn) as connection:
        query = "SELECT current_user, current_setting('fsync'), current_setting('shared_preload_libraries')"
        assert connection.execute(query).fetchone() == ("postgres", "off", "pg_stat_statements")
        assert container.version.startswith("17.")


def run_tests_that_need_prometheus(
    tmp_path: Path, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run two made-up tests in a pytest of their own, with our conftest and no prometheus on PATH."""
    (tmp_path / "test_two.py").write_text(
        "import pytest\n@pytest.mark.prometheus\ndef test_with(): pass\ndef test_without(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["-p", "no:cacheprovider", "-p", "tests.conftest", str(tmp_path)]
    environ = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT)} | environ
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_a_missing_server_leaves_out_is_named(tmp_path: Path) -> None:
    """A green run says what it did not run: nothing is skipped in silence."""
    result = run_tests_that_need_prometheus(tmp_path, {ALL_VARIABLE: ""})
    assert result.returncode == 0, result.stdout
    assert "NOT RUN: 1 test marked prometheus, for want of prometheus and promtool on PATH" in result.stdout
    assert "1 passed, 1 deselected" in result.stdout.splitlines()[-1]


def test_with_all_a_missing_server_is_a_failure(tmp_path: Path) -> None:
    """CI cannot go green without having run every test."""
    result = run_tests_that_need_prometheus(tmp_path, {ALL_VARIABLE: "1"})
    assert result.returncode == 1, result.stdout
    assert "ALL=1, and this test needs prometheus and promtool on PATH" in result.stdout
    assert "1 passed, 1 error" in result.stdout.splitlines()[-1]


def test_a_database_is_the_tests_own(database: str, server: TestServer) -> None:
    """A test finds an empty database and may leave anything in it, prepared transactions too."""
    with psycopg.connect(database) as connection:
        tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert connection.execute(tables).fetchone() == (0,)
        connection.execute("CREATE TABLE left_behind ()")
        connection.execute("PREPARE TRANSACTION 'left behind'")
    assert database != server.dsn
    assert str(os.getpid()) in database


@pytest.mark.parametrize("turn", [1, 2])
def test_a_shop_is_filled_and_the_tests_own(shop: str, turn: int) -> None:
    """What a test does to its shop, the next test's shop has not seen."""
    with psycopg.connect(shop) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (SHOP_USERS,), f"turn {turn}"
        connection.execute("DROP TABLE users CASCADE")
