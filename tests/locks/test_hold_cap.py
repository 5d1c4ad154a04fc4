"""The cap on the hold holds: a runner that is stopped, or cut off, at any point keeps no strong lock from the
application.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from online_migrate.errors import LockNotAcquired
from tests.locks.beside import (
    Application,
    Site,
    await_true,
    blocker,
    ddl,
    in_thread,
    is_waiting,
    need,
    pause,
    sessions_on,
)

ADD = "ALTER TABLE public.child ADD COLUMN extra int"
SLACK_S = 0.2
IN_QUEUE_S = 0.6
"""the one rung of these tests' ladder: long enough to see a session wait in the queue"""


@contextmanager
def runner(dsn: str, *, stop_before: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A window in a process of its own; gives the process and the pid of its working session."""
    command = [sys.executable, "-m", "tests.locks.child_window", dsn, str(stop_before)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline().split()[1])
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def is_stopped(process: subprocess.Popen[str]) -> bool:
    with open(f"/proc/{process.pid}/stat") as file:  # noqa: PTH123  # a file of the kernel
        return file.read().rsplit(")", 1)[1].split()[0] == "T"


@pytest.mark.parametrize("statement", [1, 2, 3])
def test_a_runner_that_stops_between_its_statements(site: Site, statement: int) -> None:
    """Before the look, before the side lock, before the strong one: the application reads and writes as if
    no session was waiting.
    """
    with runner(site.dsn, stop_before=statement) as (process, _), Application(site.dsn) as application:
        await_true(lambda: is_stopped(process))
        pause(0.5)
        assert application.longest_s < SLACK_S
        process.send_signal(signal.SIGCONT)
        assert process.wait(10) == 0
    assert application.errors == []
    assert "extra" in site.columns("child")


def test_a_runner_that_stops_in_the_queue(site: Site) -> None:
    """Stopped while it waits for the strong lock: the server runs the message to its end without it."""
    with blocker(site.dsn) as other, Application(site.dsn) as application, runner(site.dsn) as (process, pid):
        await_true(lambda: is_waiting(site.watch, pid))
        process.send_signal(signal.SIGSTOP)
        other.rollback()
        pause(0.3)
        assert application.longest_s < IN_QUEUE_S + SLACK_S
        held = site.watch.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = %s AND mode = 'AccessExclusiveLock' AND locktype ="
            " 'relation'",
            [pid],
        ).fetchone()
        assert held == (0,)
        process.send_signal(signal.SIGCONT)
    assert application.errors == []


class Proxy:
    """A way to the server that can be cut without a word: packets vanish, nothing is closed."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._target = (str(parts["host"]), int(str(parts["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._listener.getsockname()[1])
        self.is_cut = threading.Event()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._pump, args=(source, sink), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.is_cut.is_set():
                    sink.sendall(data)

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(2)


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    proxy = Proxy(site.dsn)
    yield proxy
    proxy.close()


def test_a_black_holed_socket(site: Site, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network swallows everything after the question for the lock was sent: the change is made and the
    lock is released.
    """
    monkeypatch.setattr("online_migrate.postgres.ladder.FIRST_TIMEOUT_S", IN_QUEUE_S)
    with sessions_on(proxy.dsn) as far, Application(site.dsn) as application, blocker(site.dsn) as other:
        pid = far.work.info.backend_pid
        window = far.window(attempts=1, blocker_age_s=60.0)
        with in_thread(lambda: window.run([need("child")], ddl(ADD))):
            await_true(lambda: is_waiting(site.watch, pid))
            proxy.is_cut.set()
            other.rollback()
            await_true(lambda: "extra" in site.columns("child"), seconds=2)
            pause(0.3)
            assert application.longest_s < IN_QUEUE_S + SLACK_S
            proxy.close()
    assert application.errors == []


def test_a_socket_cut_before_the_question(site: Site, proxy: Proxy) -> None:
    """Cut with the side lock acquired: the application does not wait behind it, and nothing was changed."""
    with sessions_on(proxy.dsn) as far, Application(site.dsn) as application:
        window = far.window(attempts=1)
        window.run([], [])
        proxy_cut_before(far, proxy, statement=3)
        with in_thread(lambda: window.run([need("child")], ddl(ADD))) as errors:
            pause(0.8)
            assert application.longest_s < SLACK_S
            proxy.close()
    assert isinstance(errors[0], psycopg.OperationalError | LockNotAcquired)
    assert application.errors == []
    assert "extra" not in site.columns("child")


def proxy_cut_before(far: Site, proxy: Proxy, *, statement: int) -> None:
    """Cut the way before the n-th statement that the working session sends from here on."""
    left = statement

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            proxy.is_cut.set()

    far.work.on_statement = count  # type: ignore[attr-defined]


def test_a_killed_runner(site: Site) -> None:
    """SIGKILL in the queue: the server notices, or the lock_timeout does; nothing is left that holds."""
    with blocker(site.dsn), Application(site.dsn) as application, runner(site.dsn) as (process, pid):
        await_true(lambda: is_waiting(site.watch, pid))
        os.kill(process.pid, signal.SIGKILL)
        await_true(lambda: not is_waiting(site.watch, pid), seconds=3)
        assert application.longest_s < IN_QUEUE_S + SLACK_S
    assert "extra" not in site.columns("child")
