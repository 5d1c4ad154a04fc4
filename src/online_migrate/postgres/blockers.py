"""The sessions that block a lock, described so that an operator can act on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.redact import redact

__all__ = ["Blocker", "read_blockers", "read_sessions", "redact"]

CHAIN_LENGTH = 5
"""a blocker may be blocked itself, and so on: so many sessions of the chain are named"""

NO_ANSWER = "standby that does not answer"
"""the kind of backend that stands for a standby of which nothing is known"""

_SESSION = """a.usename, a.application_name, a.state, a.backend_type,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
       extract(epoch FROM clock_timestamp() - a.state_change)::float8,
       left(a.query, 300), a.backend_xid IS NOT NULL,
       coalesce((SELECT r.rolsuper FROM pg_roles r WHERE r.oid = a.usesysid), false),
       CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END"""

_BLOCKERS = f"""
SELECT l.pid, c.relname, l.mode, l.granted, {_SESSION}, p.gid, extract(epoch
  FROM clock_timestamp() - p.prepared)::float8
  FROM pg_locks l
  JOIN unnest(%(oids)s::oid[], %(modes)s::text[]) AS need (oid, mode) ON need.oid = l.relation
    AND need.mode = l.mode
  JOIN pg_class c ON c.oid = l.relation
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.granted
                      AND x.virtualtransaction = l.virtualtransaction
  LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
 WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database
   WHERE datname = current_database())
   AND NOT coalesce(l.pid = ANY (%(mine)s), false) AND (l.pid IS NULL OR a.pid IS NOT NULL)
 ORDER BY l.granted DESC, a.xact_start NULLS FIRST, l.pid"""  # noqa: S608  # a constant of ours

"""A prepared transaction keeps the virtual id of the session that prepared it (source: MarkAsPreparingGuts in
twophase.c), and a lock on its own transaction id: by that it is found."""

_BY_PID = f"""
SELECT a.pid, '', '', true, {_SESSION}, NULL, NULL
  FROM pg_stat_activity a WHERE a.pid = ANY (%(pids)s)
    ORDER BY a.xact_start NULLS FIRST"""  # noqa: S608  # a constant of ours

_MIGRATION = re.compile(r"(?i)\s*(?:alter|create|drop|reindex|cluster|refresh)\b")


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
    has_written: bool = False
    """a transaction id was given to it: ending it loses what it wrote"""
    is_superuser: bool = False
    waits_for: tuple[int, ...] = ()
    """pg_blocking_pids, where it waits for a lock itself"""
    chain: tuple[str, ...] = ()
    """those sessions, the ones that they wait for, and so on"""
    standby: str = ""
    """the standby on which it reads, or empty: the primary"""

    @property
    def is_wraparound(self) -> bool:
        """A vacuum that does not yield to lock requests."""
        return self.backend_type == "autovacuum worker" and "to prevent wraparound" in self.query

    @property
    def is_autovacuum(self) -> bool:
        """An ordinary autovacuum, which yields to lock requests; one against wraparound does not."""
        return self.backend_type == "autovacuum worker" and not self.is_wraparound

    @property
    def kind(self) -> str:
        """What it is, in an operator's words."""
        application = self.application or ""
        if self.prepared is not None:
            return "prepared transaction"
        if self.backend_type == "autovacuum worker":
            return "vacuum to prevent wraparound" if self.is_wraparound else "autovacuum"
        if self.backend_type == "walsender":
            return "replication"
        if application.startswith(("pg_dump", "pg_restore", "pg_repack")):
            return application.split()[0]
        if application.startswith("online-migrate") or _MIGRATION.match(self.query):
            return "another migration"
        if (self.state or "").startswith("idle in transaction"):
            return "idle in transaction"
        return "session"

    @property
    def is_ours_to_end(self) -> bool:
        """A plain session of this server: not a standby's, no vacuum, no other migration."""
        return (
            not self.standby
            and self.backend_type == "client backend"
            and self.kind
            in {
                "session",
                "idle in transaction",
                "pg_dump",
            }
        )

    def __str__(self) -> str:
        if self.backend_type == NO_ANSWER:
            return f"standby {self.standby} does not answer, so its readers are unknown: {self.query}"
        on = f" on standby {self.standby}" if self.standby else ""
        if self.prepared is not None:
            return (
                f"prepared transaction {self.prepared!r}, {_age(self.age_s)} old, on {self.relation}:"
                " COMMIT PREPARED or ROLLBACK PREPARED it"
            )
        session = f"pid {self.pid}{on} ({self.user or '?'}, {self.application or 'no application name'})"
        what = "holds" if self.is_granted else "waits for"
        lock = f" {what} {LockMode.from_pg_locks(self.mode).sql} on {self.relation}" if self.mode else ""
        since = f", transaction {_age(self.age_s)} old" if self.age_s is not None else ""
        is_idle = (self.state or "").startswith("idle in transaction")
        idle = f", idle for {_age(self.idle_s)}" if is_idle else ""
        chain = "".join(f", waiting for {link}" for link in self.chain)
        return f"{session}: {self.kind}{lock}{since}{idle}: {redact(self.query)}{chain}"


def read_blockers(
    connection: Connection,
    needs: Iterable[tuple[int, LockMode]],
    *,
    mine: Iterable[int] = (),
    standby: str = "",
) -> tuple[Blocker, ...]:
    """Sessions that hold, or already wait for, a lock that conflicts with one of ``needs`` (oid, mode),
    oldest first.

    A blocker that waits itself is named with those it waits for (pg_blocking_pids; manual, 9.27.1).
    """
    pairs = [(oid, m.pg_locks_mode) for oid, mode in needs for m in LockMode if mode.conflicts_with(m)]
    rows = connection.execute(
        _BLOCKERS,
        {
            "oids": [oid for oid, _ in pairs],
            "modes": [mode for _, mode in pairs],
            "mine": [*mine, connection.info.backend_pid],
        },
    ).fetchall()
    found = [replace(_blocker(r), standby=standby) for r in rows]
    return tuple(
        replace(b, chain=_read_chain(connection, b)) if b.waits_for and b.pid is not None else b
        for b in found
    )


def read_sessions(connection: Connection, pids: Iterable[int]) -> tuple[Blocker, ...]:
    """The sessions of these pids."""
    return tuple(_blocker(r) for r in connection.execute(_BY_PID, {"pids": list(pids)}).fetchall())


def describe_blockers(blockers: Sequence[Blocker], limit_s: float) -> str:
    """The first of them, how many more there are, until when we wait, and what ends them."""
    more = f" (and {len(blockers) - 1} more blockers)" if len(blockers) > 1 else ""
    pids = [b.pid for b in blockers if b.pid is not None and b.is_ours_to_end]
    end = f"; to end it: SELECT pg_terminate_backend({pids[0]})" if pids else ""
    return f"{blockers[0]}{more}; we wait for at most {_age(limit_s)}{end}"


def _read_chain(connection: Connection, blocker: Blocker) -> tuple[str, ...]:
    chain: list[str] = []
    seen = {blocker.pid}
    pids: Sequence[int] = [p for p in blocker.waits_for if p]
    while pids and len(chain) < CHAIN_LENGTH:
        links = read_sessions(connection, pids)
        chain += [f"pid {b.pid} ({b.user or '?'}, {b.kind})" for b in links]
        seen.update(pids)
        pids = [p for b in links for p in b.waits_for if p and p not in seen]
    return tuple(chain[:CHAIN_LENGTH])


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "of unknown age"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _blocker(row: tuple[object, ...]) -> Blocker:
    prepared = row[14]
    return Blocker(
        pid=row[0],  # type: ignore[arg-type]
        relation=str(row[1]),
        mode=str(row[2]),
        is_granted=bool(row[3]),
        user=row[4],  # type: ignore[arg-type]
        application=row[5],  # type: ignore[arg-type]
        state=row[6],  # type: ignore[arg-type]
        backend_type=row[7],  # type: ignore[arg-type]
        age_s=row[15] if prepared is not None else row[8],  # type: ignore[arg-type]
        idle_s=row[9],  # type: ignore[arg-type]
        query=str(row[10] or ""),
        has_written=bool(row[11]),
        is_superuser=bool(row[12]),
        waits_for=tuple(row[13] or ()),  # type: ignore[arg-type]
        prepared=None if prepared is None else str(prepared),
    )
