"""The small shop before each stage of the plan, on a server that may crash, fill its disk, and fail over."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from benchmarks.standby import ask, await_true, copy_data
from online_migrate.demo.dump import DIFFERS_BY_RUN, rows_digest, schema_dump
from online_migrate.demo.shop import FEWEST_USERS, create_shop
from online_migrate.postgres.server import Server
from tests.faults.boundaries import Boundaries
from tests.faults.proxy import Cut, Request, start_proxy
from tests.faults.runners import PLAN, start_runner
from tests.servers import start_own_server

STAGES: Final = ("tables", "columns", "backfill", "indexes", "uniques", "constraints", "swap", "finish")
_SETTINGS: Final = {
    "max_wal_size": "64MB",  # a copy for a standby takes the WAL along
    "min_wal_size": "32MB",
    "wal_keep_size": "0",
    "max_wal_senders": "5",
    "hot_standby": "on",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
}
_DISK: Final = "256m"
_RUN_S: Final = 180.0
_LEFT_OUT: Final = {**DIFFERS_BY_RUN, "bots": (*DIFFERS_BY_RUN["bots"], "id")}
"""A sequence skips numbers after a crash and a failover (manual, 9.17), so the bot may get another id.  What
belongs to the bot is compared from the next stage on, which begins with the bot of the undisturbed run."""
_STATES: Final = (
    "SELECT stage, step, table_name, state FROM online_migrate.step UNION ALL"
    " SELECT stage, '', '', state FROM online_migrate.stage ORDER BY 1, 2, 3"
)


class DiskUnavailable(Exception):
    """No small disk can be made here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a stage ended: schema, rows, and the states of steps and stages in the journal."""

    schema: tuple[str, ...]
    rows: Mapping[str, str]
    states: tuple[tuple[str, ...], ...]

    def differences(self, other: End) -> list[str]:
        """What differs, at most ten lines; empty where both are equal."""
        lines = [f"- {line}" for line in self.schema if line not in other.schema]
        lines += [f"+ {line}" for line in other.schema if line not in self.schema]
        tables = {*self.rows, *other.rows}
        lines += [f"rows of {t}" for t in sorted(tables) if self.rows.get(t) != other.rows.get(t)]
        lines += [f"journal: {state}" for state in sorted({*other.states} - {*self.states})]
        return lines[:10]


@dataclass(slots=True, kw_only=True)
class Site:
    """One primary and, where asked for, its standby.  ``prepare`` first; for one attempt at a time."""

    folder: Path
    primary: Server
    plan: Path = PLAN
    disk: Path | None = None
    """the mount point of a small disk, which then holds the database of an attempt"""
    standby: Server | None = None
    boundaries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """by stage, in the order of an undisturbed run"""
    ends: dict[str, End] = field(default_factory=dict)
    """by stage, of an undisturbed run"""
    _spare: Server | None = None

    def prepare(self, stages: tuple[str, ...] = STAGES) -> None:
        """Run the plan once, undisturbed, and keep the database before each stage."""
        self._execute("CREATE DATABASE before_tables")
        create_shop(self.primary.dsn_for("before_tables"), users=FEWEST_USERS)
        last = STAGES.index(stages[-1])
        for number, stage in enumerate(STAGES[: last + 1]):
            following = f"before_{STAGES[number + 1]}" if stage != STAGES[-1] else "after_all"
            self._execute(f"CREATE DATABASE {following} TEMPLATE before_{stage}")
            self._record(stage, following)
            self.ends[stage] = self.read_end(following)

    def _record(self, stage: str, database: str) -> None:
        naming, seen = Boundaries(stage), dict[str, None]()

        def note(request: Request) -> Cut:
            seen[naming.name(request)] = None
            return Cut.NOTHING

        log = self.folder / f"undisturbed-{stage}.log"
        with start_proxy(self.primary.port, note) as proxy:
            dsn = dsn_of(proxy.port, database)
            process = start_runner(*self.arguments_of(stage), dsn=dsn, folder=self.folder, log=log)
            process.join(_RUN_S)
            if process.exitcode != 0:
                process.kill()
                raise AssertionError(f"the undisturbed run ended with {process.exitcode}:\n{log.read_text()}")
        self.boundaries[stage] = tuple(seen)

    @contextmanager
    def database_before(self, stage: str) -> Iterator[str]:
        """The name of a database as it is before that stage."""
        where = " TABLESPACE small" if self.disk is not None else ""
        self._execute(f"CREATE DATABASE attempt TEMPLATE before_{stage}{where}")
        try:
            yield "attempt"
        finally:
            self._execute("DROP DATABASE IF EXISTS attempt WITH (FORCE)")

    def arguments_of(self, stage: str) -> tuple[str, ...]:
        """What follows ``run``: up to the end of that stage, whose gate is approved."""
        approve = ("--approve", stage) if stage == "swap" else ()
        return (str(self.plan), "--through", stage, *approve)

    def read_end(self, database: str) -> End:
        with psycopg.connect(self.primary.dsn_for(database), autocommit=True) as connection:
            states = connection.execute(_STATES).fetchall()
            return End(
                schema=tuple(schema_dump(connection).splitlines()),
                rows=rows_digest(connection, leave_out=_LEFT_OUT),
                states=tuple(states),
            )

    def execute_in(self, database: str, query: str, params: list[Any] | None = None) -> None:
        """One statement in a session of its own."""
        with psycopg.connect(self.primary.dsn_for(database), autocommit=True) as connection:
            connection.execute(query.encode(), params)

    def has_journal(self, database: str) -> bool:
        """Whether a runner has got as far as that."""
        return bool(
            ask(self.primary.dsn_for(database), "SELECT to_regclass('online_migrate.heartbeat') IS NOT NULL")
        )

    def _execute(self, query: str) -> None:
        self.execute_in("postgres", query)

    # faults

    def crash(self) -> None:
        """An immediate stop, as by a power cut, and a start with recovery."""
        self.primary.restart("immediate")

    def attach_standby(self, *, is_synchronous: bool) -> None:
        """Make a standby of the primary, which streams when this returns."""
        standby = self._spare or start_own_server(_SETTINGS)
        standby._end_process("immediate")
        copy_data(self.primary, standby)
        with (standby.data / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"primary_conninfo = 'host=127.0.0.1 port={self.primary.port} user=postgres'\n")
        standby._start()
        self.standby, self._spare = standby, None
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        await_true(lambda: ask(self.primary.dsn, streaming) == 1, seconds=60)
        if is_synchronous:
            self._execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self._execute("SELECT pg_reload_conf()")
            synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            await_true(lambda: ask(self.primary.dsn, synchronous) == 1, seconds=60)

    def detach_standby(self) -> None:
        """The standby receives nothing more: what is committed from here on is lost by a failover."""
        assert self.standby is not None
        with psycopg.connect(self.standby.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
            await_true(lambda: connection.execute(receivers).fetchone() == (0,), seconds=60)

    def fail_over(self) -> None:
        """Crash the primary and promote the standby, which is the primary from here on."""
        assert self.standby is not None
        old, new = self.primary, self.standby
        old._end_process("immediate")
        with psycopg.connect(new.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 60)")
            for setting in ("synchronous_standby_names", "primary_conninfo"):
                connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(setting)))
            connection.execute("SELECT pg_reload_conf()")
        self.primary, self.standby, self._spare = new, None, old

    def drop_standby(self) -> None:
        """Back to a primary alone."""
        self._execute("ALTER SYSTEM RESET synchronous_standby_names")
        self._execute("SELECT pg_reload_conf()")
        if self.standby is not None:
            self.standby._end_process("immediate")
            self.standby, self._spare = None, self.standby

    def fill_disk(self) -> None:
        """Leave no free block on the small disk."""
        assert self.disk is not None
        with suppress(OSError), (self.disk / "ballast").open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(65536))
        with suppress(OSError), (self.disk / "ballast").open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(512))

    def free_disk(self) -> None:
        """Make room again."""
        assert self.disk is not None
        (self.disk / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Stop all servers."""
        for server in (self.primary, self.standby, self._spare):
            if server is not None:
                server.stop("immediate")


def dsn_of(port: int, database: str) -> str:
    """A runner's way to the database, through the proxy."""
    return f"host=127.0.0.1 port={port} user=postgres dbname={database} gssencmode=disable sslmode=disable"


@contextmanager
def start_site(
    *,
    stages: tuple[str, ...] = STAGES,
    plan: Path = PLAN,
    bin_dir: Path | None = None,
    with_disk: bool = False,
) -> Iterator[Site]:
    """A site that is ready; raises :class:`DiskUnavailable` where a small disk is asked for and none can be
    made.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="online-migrate-faults-")))
        disk = stack.enter_context(_small_disk(folder)) if with_disk else None
        site = Site(folder=folder, primary=start_own_server(_SETTINGS, bin_dir=bin_dir), plan=plan, disk=disk)
        stack.callback(site.close)
        if disk is not None:
            site._execute(f"CREATE TABLESPACE small LOCATION '{disk / 'files'}'")
        site.prepare(stages)
        yield site


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a fixed size in memory; only root may mount one."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=755", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise DiskUnavailable(f"a tmpfs of {_DISK} cannot be mounted: {mounted.stderr.strip()}")
    try:
        folder.chmod(0o755)
        (disk / "files").mkdir()
        if os.geteuid() == 0:
            shutil.chown(disk / "files", 65534, 65534)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
