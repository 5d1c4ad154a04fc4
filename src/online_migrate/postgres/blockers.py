"""Who is in the way of a lock, said so that an operator can act on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode

_SESSIONS = """
SELECT l.pid, c.relname, l.mode, l.granted, a.usename, a.application_name, a.state, a.backend_type,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8,
       left(a.query, 300), p.gid, extract(epoch FROM clock_timestamp() - p.prepared)::float8
  FROM pg_locks l
  JOIN pg_class c ON c.oid = l.relation
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::text
 WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.relation = ANY (%(oids)s::oid[]) AND l.mode = ANY (%(modes)s) AND NOT coalesce(l.pid = ANY (%(mine)s), false)
 ORDER BY l.granted DESC, a.xact_start NULLS FIRST"""

_BY_PID = """
SELECT a.pid, '' , '', true, a.usename, a.application_name, a.state, a.backend_type,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8, left(a.query, 300), NULL, NULL
  FROM pg_stat_activity a WHERE a.pid = ANY (%(pids)s)"""

_TEXT = re.compile(r"(?s)\$(\w*)\$.*?(?:\$\1\$|$)|[eE]?'(?:[^'\\]|''|\\.)*(?:'|$)|(?<![\w$])\d[\w.]*")


def redact(query: str) -> str:
    """A statement without its literals, on one line."""
    return re.sub(r"\s+", " ", _TEXT.sub("?", query)).strip()[:120]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """A session, or a prepared transaction, that holds or awaits a conflicting lock."""

    pid: int | None
    relation: str
    mode: str
    is_granted: bool
    user: str | None
    application: str | None
    state: str | None
    backend_type: str | None
    age_s: float | None
    """of its transaction; None where we may not see it, or where it has none"""
    idle_s: float | None
    query: str
    prepared: str | None

    @property
    def is_autovacuum(self) -> bool:
        """An ordinary autovacuum, which gives way to a waiter; one against wraparound does not."""
        return self.backend_type == "autovacuum worker" and "to prevent wraparound" not in self.query

    @property
    def kind(self) -> str:
        """What it is, in an operator's words."""
        if self.prepared is not None:
            return "prepared transaction"
        if "to prevent wraparound" in self.query:
            return "vacuum to prevent wraparound"
        if self.backend_type == "autovacuum worker":
            return "autovacuum"
        if self.application == "pg_dump" or (self.application or "").startswith("pg_dump"):
            return "pg_dump"
        if (self.application or "").startswith("online-migrate"):
            return "another migration"
        if (self.state or "").startswith("idle in transaction"):
            return "idle in transaction"
        return "session"

    def __str__(self) -> str:
        if self.prepared is not None:
            return f"prepared transaction {self.prepared!r}, {_age(self.age_s)} old, on {self.relation}: COMMIT PREPARED or ROLLBACK PREPARED it"
        who = f"pid {self.pid} ({self.user or '?'}, {self.application or 'no application name'})"
        what = "holds" if self.is_granted else "waits for"
        lock = f" {what} {LockMode.from_pg_locks(self.mode).sql} on {self.relation}" if self.mode else ""
        since = f", transaction {_age(self.age_s)} old" if self.age_s is not None else ""
        idle = f", idle for {_age(self.idle_s)}" if self.kind == "idle in transaction" else ""
        return f"{who}: {self.kind}{lock}{since}{idle}: {redact(self.query)}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "of unknown age"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def read_blockers(
    connection: Connection, needs: Iterable[tuple[int, LockMode]], *, mine: Iterable[int] = ()
) -> tuple[Blocker, ...]:
    """Sessions that hold, or already wait for, a lock that conflicts with one of ``needs`` (oid, mode), oldest first."""
    found: list[Blocker] = []
    own = [*mine, connection.info.backend_pid]
    for oid, mode in needs:
        modes = [m.pg_locks_mode for m in LockMode if mode.conflicts_with(m)]
        rows = connection.execute(_SESSIONS, {"oids": [oid], "modes": modes, "mine": own}).fetchall()
        found.extend(_blocker(r) for r in rows)
    return tuple(found)


def read_sessions(connection: Connection, pids: Iterable[int]) -> tuple[Blocker, ...]:
    """The sessions of these pids."""
    return tuple(_blocker(r) for r in connection.execute(_BY_PID, {"pids": list(pids)}).fetchall())


def _blocker(row: tuple[object, ...]) -> Blocker:
    prepared = row[11]
    return Blocker(
        pid=row[0],  # type: ignore[arg-type]
        relation=str(row[1]),
        mode=str(row[2]),
        is_granted=bool(row[3]),
        user=row[4],  # type: ignore[arg-type]
        application=row[5],  # type: ignore[arg-type]
        state=row[6],  # type: ignore[arg-type]
        backend_type=row[7],  # type: ignore[arg-type]
        age_s=row[12] if prepared is not None else row[8],  # type: ignore[arg-type]
        idle_s=row[9],  # type: ignore[arg-type]
        query=str(row[10] or ""),
        prepared=None if prepared is None else str(prepared),
    )
