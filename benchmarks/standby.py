"""A streaming standby of a throwaway server, by a copy of its data folder: needs no pg_basebackup."""

# ruff: noqa: SLF001  # a crash and a start on the same data are no business of the public Server

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import psycopg

from online_migrate.postgres.server import Server

CATCH_UP_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A primary and its streaming standby."""

    primary: Server
    standby: Server

    def pause(self) -> None:
        """Pause replay until :meth:`resume`."""
        run(self.standby.dsn, "SELECT pg_wal_replay_pause()")
        await_true(lambda: ask(self.standby.dsn, "SELECT pg_get_wal_replay_pause_state()") == "paused")

    def resume(self) -> None:
        run(self.standby.dsn, "SELECT pg_wal_replay_resume()")

    def cut(self) -> None:
        """End the standby as by a crash."""
        self.standby._end_process("immediate")
        await_true(lambda: ask(self.primary.dsn, "SELECT count(*) FROM pg_stat_replication") == 0)

    def bring_back(self) -> None:
        self.standby._start()
        self.await_caught_up()

    def await_caught_up(self) -> None:
        """Wait until the standby has replayed all WAL of the primary."""
        query = (
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= %s::pg_lsn"
        )
        written = ask(self.primary.dsn, "SELECT pg_current_wal_lsn()::text")
        await_true(lambda: ask(self.primary.dsn, query, [written]) == 1)


def run(dsn: str, query: str) -> None:
    """Execute one statement in a session of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(query.encode())


def ask(dsn: str, query: str, params: list[object] | None = None) -> object:
    """The first value of its result."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode(), params).fetchone()
    assert row is not None
    return row[0]


def await_true(condition: Callable[[], bool], *, seconds: float = CATCH_UP_S) -> None:
    """Poll until it is true; fails if it never is."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"it did not come true within {seconds:.0f} s"
        sleep(0.02)


@contextmanager
def start_pair(start: Callable[[], Server]) -> Iterator[Pair]:
    """A primary, made by ``start``, and a standby that streams from it."""
    with start() as primary, start() as standby:
        standby._end_process("immediate")
        copy_data(primary, standby)
        with (standby.data / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres'\n")
            conf.write("hot_standby_feedback = on\nwal_receiver_status_interval = 1s\n")
        pair = Pair(primary=primary, standby=standby)
        pair.bring_back()
        yield pair


def copy_data(primary: Server, standby: Server) -> None:
    """A base backup with the low-level functions (manual, 26.3.3 "Making a Base Backup Using the Low Level
    API").
    """
    with psycopg.connect(primary.dsn, autocommit=True) as connection:
        old = connection.info.server_version < 150000
        begin = "pg_start_backup('test', true, false)" if old else "pg_backup_start('test', true)"
        connection.execute(f"SELECT {begin}".encode())
        shutil.rmtree(standby.data)
        subprocess.run(["cp", "-Rp", str(primary.data), str(standby.data)], check=True)  # noqa: S607
        end = "pg_stop_backup(false, false)" if old else "pg_backup_stop(false)"
        row = connection.execute(f"SELECT labelfile FROM {end}".encode()).fetchone()
    assert row is not None
    (standby.data / "postmaster.pid").unlink()
    for name, text in (("backup_label", row[0]), ("standby.signal", "")):
        write_as_server(standby.data / name, text)


def write_as_server(path: Path, text: str) -> None:
    """Write a file with the data folder's owner."""
    path.write_text(text)
    shutil.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)
