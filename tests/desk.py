"""An operator at a desk: a plan in a folder, a database, the command line, within
this process or as a child.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict

from online_migrate.cli import main
from online_migrate.demo.dump import DIFFERS_BY_RUN, rows_digest, schema_dump

PLANS: Final = Path(__file__).parents[1] / "plans"
WHOLE: Final = (PLANS / "multi_tenant.yaml").read_text()
TOKEN: Final = "8135:AAmade-up-telegram-token"
SMALL_TABLES: Final = ("transactions", "users", "promocodes", "promo_groups")
SLOW: Final = "{batch_target: 1ms, duty: 10%, min_rows: 1, max_rows: 5}"
"""some 500 batches of 5 rows with 30 ms between them: time to stop a runner in the middle"""
PATIENCE_S: Final = 90.0


def small_text(*, tables: tuple[str, ...] = SMALL_TABLES, pace: str = "") -> str:
    """The multi-tenant plan over four tables, with one new table: every kind of step but verify_sql."""
    text = re.sub(r"tables: \[\n.*?\]", f"tables: [{', '.join(tables)}]", WHOLE, flags=re.DOTALL)
    text = re.sub(r"\n    also: .*", "", text)
    text = re.sub(r"\n      - verify_sql: .*", "", text)
    text = text.replace("create_tables: multi_tenant.sql", "create_tables: bots.sql")
    return re.sub(r"\n    pace: .*", f"\n    pace: {pace}", text) if pace else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


@dataclass(slots=True, kw_only=True)
class Desk:
    """``folder`` is the working directory and holds the plan's files."""

    folder: Path
    dsn: str
    environ: dict[str, str] = field(default_factory=lambda: {"MASTER_BOT_TOKEN": TOKEN})
    plan: Path = Path("plan.yaml")
    children: list[Child] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """Where generated secrets are written, in a folder of the program's name."""
        return self.folder / "state"

    def write(self, text: str) -> Path:
        """The plan's text; returns its path."""
        ddl = (PLANS / "multi_tenant.sql").read_text()
        (self.folder / "bots.sql").write_text(ddl.partition("-- What a bot may do.")[0])
        for name in ("multi_tenant.sql", "multi_tenant.verify.sql"):
            (self.folder / name).write_text((PLANS / name).read_text())
        (self.folder / self.plan).write_text(text)
        return self.folder / self.plan

    @property
    def _environ(self) -> dict[str, str]:
        libpq = {k: "" for k in os.environ if k.startswith("PG") and k not in ("PG_BIN", "PGPASSWORD")}
        return {
            **libpq,
            "ONLINE_MIGRATE_DSN": self.dsn,
            "XDG_STATE_HOME": str(self.state),
            "MASTER_BOT_TOKEN": "",
            **self.environ,
        }

    def call(self, command: str, *arguments: str, plan: bool = True) -> Said:
        """A command in this process."""
        words = [command, *([str(self.plan)] if plan else []), *arguments]
        result = CliRunner().invoke(main, words, env=self._environ, prog_name="online-migrate")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(code=result.exit_code, out=result.stdout, err=result.stderr)

    def start(self, *arguments: str, command: str = "run") -> Child:
        """``online-migrate run``, or another command, as a child process, ended with the test."""
        child = Child([command, str(self.plan), *arguments], folder=self.folder, environ=self._environ)
        self.children.append(child)
        return child

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn, autocommit=True, application_name="test", client_encoding="UTF8")

    def ask(self, query: str, params: Sequence[Any] | None = None) -> Any:
        """The first column of the first row."""
        with self.connect() as connection:
            row = connection.execute(query.encode(), params).fetchone()
        return None if row is None else row[0]

    def run_sql(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def has_journal(self) -> bool:
        return bool(self.ask("SELECT to_regnamespace('online_migrate') IS NOT NULL"))

    def end(self) -> tuple[str, dict[str, str]]:
        """The state of the database: its schema, and its rows except what differs from run to run."""
        with self.connect() as connection:
            return schema_dump(connection), rows_digest(connection, leave_out=DIFFERS_BY_RUN)

    def await_true(self, query: str, child: Child | None = None) -> None:
        """Until the query's first column is true; a child that ends before fails the test with its words."""
        with self.connect() as connection:
            await_true(lambda: _is_true(connection, query), query, child)

    def await_batches(self, more: int, child: Child) -> None:
        """Until the child's backfill of transactions has committed so many batches more."""
        with self.connect() as connection:
            before = _batches(connection)
            await_true(lambda: _batches(connection) >= before + more, f"{more} batches after {before}", child)


def _batches(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """How many batches the backfill of transactions has committed."""
    try:
        row = connection.execute(
            "SELECT batches FROM online_migrate.cursor WHERE table_name = 'transactions'"
        ).fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    return 0 if row is None else int(row[0])


class Child:
    """A runner in a process of its own."""

    def __init__(self, arguments: list[str], *, folder: Path, environ: Mapping[str, str]) -> None:
        self.log = folder / f"run-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "online_migrate.cli", *arguments]
        environ = {k: v for k, v in {**os.environ, **environ}.items() if v}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """Its exit code; fails the test with its words when it does not end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the runner did not end in {seconds} s; it said:\n{self.said}")

    def await_words(self, words: str) -> None:
        await_true(lambda: words in self.said, words, self)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def await_true(condition: Callable[[], bool], what: str, child: Child | None = None) -> None:
    """Look until it is so; fails the test when it is not in time, or when the child has ended before."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        ended = child is not None and child.process.poll() is not None
        if ended and condition():
            return
        if ended or time.monotonic() > deadline:
            pytest.fail(f"not so: {what}" + (f"; the runner said:\n{child.said}" if child else ""))
        time.sleep(0.03)


def _is_true(connection: psycopg.Connection[tuple[Any, ...]], query: str) -> bool:
    row = connection.execute(query.encode()).fetchone()
    return row is not None and bool(row[0])


@contextmanager
def open_desk(dsn: str, folder: Path, text: str) -> Iterator[Desk]:
    """A desk with a plan; its children are ended with it."""
    desk = Desk(folder=folder, dsn=dsn)
    desk.write(text)
    try:
        yield desk
    finally:
        for child in desk.children:
            child.end()


class SessionCount(threading.Thread):
    """The most sessions that a runner had at once in a database, sampled every 50 ms."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.most: tuple[str, ...] = ()
        self._database = conninfo_to_dict(dsn)["dbname"]
        self._dsn = dsn
        self._over = threading.Event()

    def run(self) -> None:
        query = (
            "SELECT array_agg(application_name) FROM pg_stat_activity WHERE datname = %s AND"
            " application_name LIKE 'online-migrate%%'"
        )
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._over.wait(0.05):
                row = connection.execute(query, [self._database]).fetchone()
                names = tuple(row[0] or ()) if row else ()
                self.most = max(self.most, names, key=len)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
