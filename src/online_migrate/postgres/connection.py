"""The only opener of connections: session settings, application_name, pooler detection.

Every session of ours sets its timeouts, search_path, isolation level and keepalives, whatever the role or the
database have as defaults: a role's statement_timeout or idle_session_timeout must not cut us off in the
middle.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import psycopg
import psycopg.conninfo
from psycopg import sql

from online_migrate.errors import ConnectionFailed, OnlineMigrateError, PreflightFailed, UsageError
from online_migrate.postgres.loaders import register_loaders

Connection = psycopg.Connection[tuple[Any, ...]]
OUR_PATH = "pg_catalog, pg_temp"
"""search_path of our sessions: see search_path.py"""
Sql = sql.SQL | sql.Composed
"""a statement as psycopg takes it"""

OLDEST_SERVER = 140004
"""14.4: 14.0 to 14.3 corrupt indexes that are built concurrently under heap-only pruning (release notes of
14.4)."""

_KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""Keepalives ask only on an idle connection; while something of ours is not acknowledged, tcp_user_timeout
(ms) counts instead (tcp(7)).  Without it a statement sent into a cut network waits for the kernel's quarter
of an hour."""
_SESSION = {
    "statement_timeout": "0",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "session_replication_role": None,
    "row_security": "off",
    "synchronous_commit": "on",
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "escape_string_warning": "off",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "xmloption": "content",
    "quote_all_identifiers": "off",
    "default_transaction_deferrable": "off",
    "check_function_bodies": "on",
    "jit": "off",
}
"""lock_timeout 5 s: no statement of ours waits for ever, and one that may wait longer sets its own.
client_connection_check_interval (from 14 on): a statement whose runner was killed ends by itself within 2 s.
tcp_…: the same from the server's side, so that the sessions, and the locks, of a runner whose machine
vanished end within 30 s.  Over a Unix socket, and where the system has no such option, setting them does
nothing (pqcomm.c)."""

_CUTTING = {"57014": "statement_timeout", "25P04": "transaction_timeout", "57P05": "idle_session_timeout"}
"""what may end a session's first message, by SQLSTATE (manual, appendix A)"""


class NoServer(ConnectionFailed):
    """The server did not let us in."""


def version_text(server_version: int) -> str:
    """140004 → '14.4'."""
    return f"{server_version // 10000}.{server_version % 10000}"


def ensure_supported(server_version: int) -> None:
    """Raise :class:`PreflightFailed` where the server is older than the oldest supported one."""
    if server_version < OLDEST_SERVER:
        raise PreflightFailed(
            f"the server is PostgreSQL {version_text(server_version)}; 14.4 is the oldest supported one",
            remedy="upgrade the server: before 14.4, CREATE INDEX CONCURRENTLY can leave a corrupt index",
        )


def ensure_direct(said_pid: int, found_pid: int) -> None:
    """Raise :class:`PreflightFailed` where the session's process is not the one that
    answered the connection.
    """
    if said_pid != found_pid:
        raise PreflightFailed(
            "there is a connection pooler between us and the server: the session's process is "
            f"{found_pid}, the pooler had said {said_pid}",
            remedy="give a DSN that leads straight to PostgreSQL: advisory locks and settings are bound to a"
            " session",
        )


class _OurCursor(psycopg.Cursor[tuple[Any, ...]]):
    connection: _OurConnection

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Self:
        with self.connection.turn:
            if self.connection.on_statement is not None:
                self.connection.on_statement()
            super().execute(query, params, **kwargs)
        return self


class _OurConnection(psycopg.Connection[tuple[Any, ...]]):
    """May be shared by threads: a statement, or a whole ``transaction()``, is one thread's turn.

    psycopg's own lock holds for one statement only, so another thread's would slip into a transaction.
    """

    on_statement: Callable[[], None] | None = None
    role_path: str = ""
    """the search_path that role, database and DSN give"""
    plan_schema: str = "public"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.turn = threading.RLock()

    @contextmanager
    def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002  # as psycopg has it
    ) -> Iterator[psycopg.Transaction]:
        with self.turn, super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction

    def rollback(self) -> None:
        with self.turn:
            super().rollback()


def role_path_of(connection: Connection) -> tuple[str, str]:
    """The search_path that the session would have by itself, as a value for ``SET search_path``, and the
    plan's schema.
    """
    if isinstance(connection, _OurConnection):
        return connection.role_path, connection.plan_schema
    row = connection.execute("SHOW search_path").fetchone()
    assert row is not None  # SHOW has one row
    return str(row[0]), "public"


def turn_of(connection: Connection) -> AbstractContextManager[Any]:
    """Keeps other threads from a session of ours for several statements that belong together, outside a
    ``transaction()``.
    """
    return connection.turn if isinstance(connection, _OurConnection) else nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """Knows how to open a session of ours; ``dsn`` may be empty, then libpq's PG* variables say where.

    ``on_statement`` is called before each statement (the demo's fault injection counts them).
    """

    dsn: str
    schema: str = "public"
    application: str = "online-migrate"
    on_statement: Callable[[], None] | None = None

    @property
    def where(self) -> str:
        """The database in words, ``shop on db.example as migrator``; never a password."""
        known = os.environ
        try:
            given = psycopg.conninfo.conninfo_to_dict(self.dsn)
        except psycopg.Error:
            return "a DSN that cannot be read"
        user = given.get("user") or known.get("PGUSER") or "the login's own name"
        database = given.get("dbname") or known.get("PGDATABASE") or user
        host = given.get("host") or known.get("PGHOST") or "a local socket"
        port = given.get("port") or known.get("PGPORT") or "5432"
        return f"{database} on {host}:{port} as {user}"

    def open(
        self, purpose: str, *, settings: dict[str, str] | None = None, may_be_standby: bool = False
    ) -> Connection:
        """A new autocommit session with our settings, on a primary unless ``may_be_standby``.

        ``purpose`` is part of application_name, which is cut at 63 bytes and is for people only. Raises
        :class:`NoServer` with what the server said and what to do, :class:`UsageError` for a DSN that is
        none, :class:`PreflightFailed` for a server that is too old, and for a pooler.
        """
        name = f"{self.application} {purpose}"[:63]
        try:
            connection = _OurConnection.connect(
                self.dsn,
                autocommit=True,
                application_name=name,
                client_encoding="UTF8",
                cursor_factory=_OurCursor,
                prepare_threshold=None,
                connect_timeout=10,
                **_KEEPALIVES,  # type: ignore[arg-type]  # libpq takes them as text
            )
        except psycopg.OperationalError as error:
            raise NoServer(
                f"no connection to the database: {_one_line(error)}", remedy=_remedy(str(error))
            ) from error
        except psycopg.ProgrammingError:  # its text may quote the DSN, password included
            raise UsageError(
                "the DSN cannot be read",
                remedy="write it as 'host=db.example dbname=shop user=app' or"
                " 'postgresql://app@db.example/shop'",
            ) from None
        try:
            ensure_supported(connection.info.server_version)
            self._apply_settings(connection, settings or {}, may_be_standby=may_be_standby)
        except psycopg.Error as error:
            connection.close()
            remedy = _cut_off(error) or _remedy(str(error))
            raise NoServer(f"no usable session: {_one_line(error)}", remedy=remedy) from error
        except OnlineMigrateError:
            connection.close()
            raise
        register_loaders(connection)
        connection.on_statement = self.on_statement
        return connection

    def _apply_settings(
        self, connection: _OurConnection, settings: dict[str, str], *, may_be_standby: bool
    ) -> None:
        wanted = {k: v for k, v in (_SESSION | settings).items() if v is not None}
        if connection.info.server_version >= 170000:
            wanted.setdefault("transaction_timeout", "0")
        # No function is called before the path is ours: it could be another's.
        path = connection.execute(f"SHOW search_path; SET search_path = {OUR_PATH}").fetchone()
        assert path is not None  # SHOW has one row
        connection.role_path, connection.plan_schema = path[0], self.schema
        assignments = sql.SQL("; ").join(
            sql.SQL("SELECT pg_catalog.set_config({}, {}, false)").format(sql.Literal(k), sql.Literal(v))
            for k, v in wanted.items()
        )
        connection.execute(assignments)
        row = connection.execute("SELECT pg_backend_pid(), pg_is_in_recovery()").fetchone()
        assert row is not None  # a SELECT without FROM has one row
        ensure_direct(connection.info.backend_pid, int(row[0]))
        if row[1] and not may_be_standby:
            raise NoServer(
                "the server that answers is a standby: nothing can be written there",
                remedy="give the primary's DSN, or all hosts with target_session_attrs=read-write",
            )


def name_beside_parameters(*names: str) -> sql.Identifier:
    """A name within a query that is given parameters: there psycopg takes each ``%`` for the beginning of a
    placeholder.
    """
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def _one_line(error: psycopg.Error) -> str:
    """On one line, without a value that libpq cannot read: in a mistyped URI it is part of the password."""
    text = " ".join(str(error).split())
    return re.sub(r'"[^"]*"(?= for connection option)|(?<=number: )".*"', "(not shown)", text)


def _cut_off(error: psycopg.Error) -> str:
    """The remedy where a timeout of the role's or the database's ends the message that sets our own."""
    name = _CUTTING.get(error.sqlstate or "", "")
    return name and f"ALTER ROLE … RESET {name}, ALTER DATABASE … too, or options='-c {name}=0' in the DSN"


def _remedy(message: str) -> str:
    if "password authentication failed" in message or "no password supplied" in message:
        return "set PGPASSWORD, or a line in ~/.pgpass, for this user; then try again"
    if "does not exist" in message:
        return "check the name of the database and of the role in the DSN"
    if "permission denied for database" in message:
        return "GRANT CONNECT ON DATABASE, which the message names, TO this role; then try again"
    if "pg_hba.conf" in message:
        return "the server refuses this user from this host: see its pg_hba.conf"
    if "too many" in message or "remaining connection slots" in message:
        return (
            "6 connections are needed, and one more for each worker past the second: free some, or"
            " reserve them for the role; then try again"
        )
    return (
        "check host, port and that the server runs: --dsn, or ONLINE_MIGRATE_DSN, or libpq's PGHOST,"
        " PGPORT, PGUSER, PGDATABASE"
    )
