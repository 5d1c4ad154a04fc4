"""What all tests share: the server, a database each, and the account of what did not run and how long it
took.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import hypothesis
import psycopg
import pytest
from psycopg import sql

from online_migrate.errors import ServerUnavailable
from tests.servers import (
    ALL_VARIABLE,
    SHOP_USERS,
    Choice,
    TestServer,
    choose_server,
    find_missing_servers,
    is_engine_there,
)

# A busy machine is no defect of what is tested; pytest's timeout ends a test that hangs.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

# Under nohup, or behind a shell's `&`, our runners would inherit that they are to ignore these.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

MAY_LACK: Final = {"engine", "small_disk"}
"""No container engine can run in CI, where the choice of a server is tested without one; and not every CI may
mount."""

choice_key = pytest.StashKey[Choice]()
missing_key = pytest.StashKey[dict[str, str]]()
not_run_key = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden", action="store_true", help="rewrite tests/golden/*.txt instead of comparing"
    )


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[choice_key] = choose_server(os.environ, engine_answers=is_engine_there)
    except (psycopg.OperationalError, ServerUnavailable) as error:
        raise pytest.UsageError(f"no server for the tests: {error}") from error
    config.stash[missing_key] = find_missing_servers()
    config.stash[not_run_key] = Counter()


def pytest_report_header(config: pytest.Config) -> str:
    return f"server: {config.stash[choice_key]}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose server is missing; with ALL=1 they stay, and fail in pytest_runtest_setup."""
    missing = config.stash[missing_key]
    left_out = missing.keys() & MAY_LACK if is_all_asked_for() else missing.keys()
    kept: list[pytest.Item] = []
    without: list[pytest.Item] = []
    for item in items:
        needs = [mark.name for mark in item.iter_markers() if mark.name in left_out]
        config.stash[not_run_key].update(needs)
        (without if needs else kept).append(item)
    items[:] = kept
    if without:
        config.hook.pytest_deselected(items=without)


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = item.config.stash[missing_key]
    for mark in item.iter_markers():
        if mark.name in missing:
            pytest.fail(f"ALL=1, and this test needs {missing[mark.name]}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how long each folder took, and what did not run for want of which server."""
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[Path(report.nodeid.split("::")[0]).parent.as_posix()] += report.duration
    terminalreporter.section("seconds by folder")
    for folder, spent in sorted(seconds.items(), key=lambda entry: -entry[1]):
        terminalreporter.write_line(f"{spent:8.1f}  {folder}")
    for marker, number in config.stash[not_run_key].items():
        tests = "1 test" if number == 1 else f"{number} tests"
        terminalreporter.write_line(
            f"NOT RUN: {tests} marked {marker}, for want of {config.stash[missing_key][marker]}"
        )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Each worker of pytest-xdist has collected all tests: what the first one left out was not run."""
    if node.gateway.id == "gw0":
        not_run: Counter[str] = node.config.stash[not_run_key]
        not_run.update(getattr(node, "workeroutput", {}).get("not_run", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        not_run = session.config.stash[not_run_key]
        session.config.workeroutput["not_run"] = dict(not_run)


def is_all_asked_for() -> bool:
    return os.environ.get(ALL_VARIABLE, "") not in {"", "0"}


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[TestServer]:
    """The server that all tests share: databases are each test's own, roles and settings are not."""
    with request.config.stash[choice_key].start() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(server: TestServer) -> Callable[[str | None], str]:
    """Make a database, a copy of the template of that name if one is given; returns its name."""
    numbers = count(1)
    run = os.getpid()  # a server from the environment may be shared by two runs

    def create(template: str | None) -> str:
        name = f"om_test_{run}_{next(numbers)}"
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            create_database(connection, name, template or "template0")
        return name

    return create


@pytest.fixture
def database(server: TestServer, new_database: Callable[[str | None], str]) -> Iterator[str]:
    """The DSN of an empty database of the test's own."""
    with dropped_after(server, new_database(None)) as dsn:
        yield dsn


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A runner that a test starts writes its generated secrets here, never to the
    home of who runs the tests.
    """
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def shop_template(server: TestServer, new_database: Callable[[str | None], str]) -> Iterator[str]:
    """The name of a database that holds the filled legacy shop; it must have no session."""
    from online_migrate.demo.shop import create_shop

    name = new_database(None)
    with dropped_after(server, name) as dsn:
        create_shop(dsn, users=SHOP_USERS)
        yield name


@pytest.fixture
def shop(server: TestServer, new_database: Callable[[str | None], str], shop_template: str) -> Iterator[str]:
    """The DSN of a fresh copy of the filled legacy shop."""
    with dropped_after(server, new_database(shop_template)) as dsn:
        yield dsn


def create_database(connection: psycopg.Connection, name: str, template: str) -> None:
    query = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    connection.execute(query)


@contextmanager
def dropped_after(server: TestServer, name: str) -> Iterator[str]:
    """Give the database's DSN; drop it afterwards with whatever a failed test left in it."""
    try:
        yield server.dsn_for(name)
    finally:
        drop_database(server, name)


def drop_database(server: TestServer, name: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        prepared = connection.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE database = %s", [name]
        ).fetchall()
        if prepared:  # FORCE ends sessions, not prepared transactions
            roll_back(server.dsn_for(name), [gid for (gid,) in prepared])
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def roll_back(dsn: str, prepared: list[str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for gid in prepared:
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))


@pytest.fixture(autouse=True)
def unhurried_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a rehearsal that runs out of time says so: what a test reads may not."""
    monkeypatch.setattr("online_migrate.engine.check.rehearsal.GROUP_LIMIT_S", 60.0)
    monkeypatch.setattr("online_migrate.postgres.stand_ins.STATEMENT_TIMEOUT_MS", 30_000)
    monkeypatch.setattr("online_migrate.postgres.sample_rows.READ_TIMEOUT_MS", 30_000)
