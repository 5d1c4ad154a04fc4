"""What all benchmarks share: a throwaway server, filled tables, measurements, and the results' place."""

from __future__ import annotations

import os
import platform
import re
import resource
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from online_migrate.postgres.connection import Connection, Connector
from online_migrate.postgres.server import Server, start_server

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SETTINGS = {
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "shared_preload_libraries": "",
    "synchronous_commit": "on",
}
"""checkpoints come when we ask for them, before each round, so that every way writes the same full-page
images
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A table to fill; the column bot_id is empty in every row."""

    name: str
    about: str
    key: str = "bigserial PRIMARY KEY"
    filler: int = 40
    after: str = ""
    """run once it is filled"""


SHAPES = {
    s.name: s
    for s in (
        Shape(name="int", about="bigserial key, 4 indexes"),
        Shape(
            name="uuid", about="random uuid key, 4 indexes", key="uuid PRIMARY KEY DEFAULT gen_random_uuid()"
        ),
        Shape(
            name="wide",
            about="900-byte rows, 4 indexes",
            filler=800,
        ),
        Shape(
            name="fk",
            about="bigserial key, the foreign key already there",
            after="ALTER TABLE t ADD FOREIGN KEY (bot_id) REFERENCES bots",
        ),
        Shape(
            name="index",
            about="bigserial key, the index on bot_id already there",
            after="CREATE INDEX ON t (bot_id)",
        ),
    )
}


def open_session(dsn: str, purpose: str) -> Connection:
    """A session of a benchmark's own statements, whose tables are in public and have no schema before them.

    The sessions of the program have another search_path.
    """
    connection = Connector(dsn=dsn).open(purpose)
    connection.execute("SET search_path = public")
    return connection


def fill(connection: Connection, shape: Shape, rows: int, *, table: str = "t") -> None:
    """Make the table."""
    name = sql.Identifier(table)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS bots (id integer PRIMARY KEY);"
        " INSERT INTO bots VALUES (1) ON CONFLICT DO NOTHING"
    )
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (id {}, user_id bigint NOT NULL, amount bigint NOT NULL,"
            " state text NOT NULL, at timestamptz NOT NULL,"
            " filler text, bot_id integer); ALTER TABLE {} ALTER filler SET STORAGE PLAIN"
        ).format(name, sql.SQL(shape.key), name)
    )
    connection.execute(
        sql.SQL(
            "INSERT INTO {} (user_id, amount, state, at, filler)"
            " SELECT (random() * 100000)::int, n, 'paid', now() - n * interval '1 s',"
            " repeat('x', {}) FROM generate_series(1, {}) n"
        ).format(name, sql.Literal(shape.filler), sql.Literal(rows))
    )
    for column in ("user_id", "amount", "at"):
        connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(name, sql.Identifier(column)))
    if shape.after:
        connection.execute(sql.SQL(shape.after))
    connection.execute(sql.SQL("VACUUM ANALYZE {}").format(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    table: int
    indexes: int
    wal: int


def read_sizes(connection: Connection, table: str = "t") -> Sizes:
    """Bytes now; WAL since the beginning of the server."""
    row = connection.execute(
        "SELECT pg_relation_size(%(t)s), pg_indexes_size(%(t)s), (pg_current_wal_insert_lsn() - '0/0')::int8",
        {"t": table},
    ).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    return Sizes(table=row[0], indexes=row[1], wal=row[2])


def read_hot_share(dsn: str, table: str = "t") -> float | None:
    """The share of heap-only updates of the table; the sessions that made them must be closed."""
    with open_session(dsn, "benchmark") as connection:
        row = connection.execute(
            "SELECT n_tup_hot_upd::float8 / nullif(n_tup_upd, 0) FROM pg_stat_user_tables WHERE relname = %s",
            [table],
        ).fetchone()
    return None if row is None else row[0]


def read_server_cpu_s(made: Server) -> float:
    """CPU seconds of all the server's processes so far, ended ones included; 0 where there is no /proc.

    Wavers less than seconds on a machine that others use.  Source: proc(5), fields utime to cstime of
    /proc/pid/stat.
    """
    postmaster = int((made.data / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(path.parent.name) == postmaster:
            ticks += sum(int(f) for f in fields[11:15])
        elif int(fields[1]) == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class PeakMemory:
    """The peak memory of this process since this object was created, in bytes.

    Source: proc(5), /proc/pid/clear_refs (5 resets the peak) and VmHWM of /proc/pid/status.  Where they are
    not, the process's peak since its start, as :func:`resource.getrusage` has it.
    """

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._is_reset = False
        else:
            self._is_reset = True

    def read(self) -> int:
        if self._is_reset:
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def server(settings: dict[str, str] | None = None) -> Iterator[Server]:
    """A throwaway server with fsync on, in the folder for temporary files."""
    with start_server(settings=SETTINGS | (settings or {})) as made:
        yield made


@contextmanager
def copied(made: Server, template: str, name: str = "bench") -> Iterator[str]:
    """A fresh copy of a database, after a checkpoint; its DSN."""
    with psycopg.connect(made.dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        connection.execute("CHECKPOINT")
    try:
        yield dsn_of(made, name)
    finally:
        with psycopg.connect(made.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def dsn_of(made: Server, name: str) -> str:
    """Another database of the server."""
    return psycopg.conninfo.make_conninfo(made.dsn, dbname=name)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Half of the difference between greatest and least, divided by the median: ± this."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def machine(made: Server) -> str:
    """The machine and the date of the measurement."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, PostgreSQL {made.version}, {os.cpu_count()} cores,"
        f" {memory:.0f} GiB of memory,"
        f" {platform.system()} {platform.machine()}, load average {load:.1f} at the end"
    )


def write_section(name: str, text: str) -> None:
    """Rewrite a section of docs/benchmarks.md, between its marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before = DOCUMENT.read_text()
    section = f"{begin}\n{text.strip()}\n{end}"
    marked = re.compile(rf"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if marked.search(before) is None:
        raise ValueError(f"{DOCUMENT.name} has no place for {name}")
    DOCUMENT.write_text(marked.sub(lambda _: section, before))
