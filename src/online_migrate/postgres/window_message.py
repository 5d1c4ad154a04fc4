"""What a lock window sends: from the question for the lock to COMMIT, and after it, as one message to the
server.

One simple-query message inside a transaction block: the server runs it to its end, or to the first error,
without us. On an error it lets the locks go at once, before our ROLLBACK comes (AbortTransaction in
PostgreSQL's xact.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from online_migrate.postgres.connection import Connection, Sql
from online_migrate.postgres.ladder import Ladder
from online_migrate.postgres.locks import LockMode, LockNeed

_TARGETS = """
WITH RECURSIVE wanted AS (
  SELECT c.oid, 0 AS depth FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND c.relname = %(name)s
  UNION
  SELECT i.inhrelid, w.depth + 1 FROM pg_inherits i JOIN wanted w ON i.inhparent = w.oid
   WHERE NOT %(is_alone)s)
SELECT c.oid::int8, n.nspname, c.relname, c.relkind IN ('r', 'p'),
       has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
  FROM wanted w JOIN pg_class c ON c.oid = w.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY w.depth, c.oid"""

_COMPARE = """
DECLARE surplus text; BEGIN
IF NOT EXISTS (
  SELECT FROM pg_catalog.pg_locks l
   WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.relation >= 16384
     AND array_position({modes}, l.mode)
       > greatest(3, coalesce(({levels}::int[])[array_position({oids}::oid[], l.relation)], 0))
) THEN RETURN; END IF;
SELECT string_agg(format('%s on %s (declared: %s)', held.mode, coalesce(declared.name,
  held.relation::regclass::text),
                         coalesce(declared.mode, 'nothing')), ', ' ORDER BY held.relation) INTO surplus
  FROM (SELECT l.relation, l.mode, array_position({modes}, l.mode) AS level FROM pg_catalog.pg_locks l
         WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
             WHERE d.datname = pg_catalog.current_database())) held
  LEFT JOIN pg_catalog.pg_class c ON c.oid = held.relation
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN unnest({oids}::oid[], {declared}::text[], {names}::text[]) AS declared (relation, mode, name)
    ON declared.relation = held.relation
 WHERE held.level > 3 AND held.level > coalesce(array_position({modes}, declared.mode), 0)
   AND coalesce(n.nspname, '') NOT IN ('pg_catalog', 'pg_toast', 'online_migrate')
   AND NOT (SELECT coalesce(bool_and(a.xmin::text = (pg_catalog.pg_current_xact_id()::xid)::text), false)
              FROM pg_catalog.pg_attribute a WHERE a.attrelid = held.relation);
IF surplus IS NOT NULL THEN RAISE EXCEPTION '%', surplus USING ERRCODE = 'OM004'; END IF;
END"""
"""What this session holds against what was declared.  Left aside: modes up to ROW EXCLUSIVE, the system's
catalogs, the journal, a table's TOAST (which is only reached through the table), and relations made in this
transaction (all pg_attribute rows of such a relation are ours; no other's are, since a table's rows for its
system columns are written once, when it is made).  A relation that was dropped in this transaction has no row
in pg_class any more, but its lock is still compared.

The first question is asked without a join: where it finds nothing, as in most windows, the second is not even
planned, which takes longer than many a change (2.5 ms of 5).  Relations of the system have OIDs below 16384
(transam.h)."""

_ASKED = "SELECT pg_catalog.clock_timestamp() AS asked"
_GRANTED = (
    "SELECT pg_catalog.clock_timestamp() AS granted, pg_catalog.set_config('online_migrate.granted',"
    " extract(epoch FROM pg_catalog.clock_timestamp())::text, true)"
)
_WAITERS = (
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE NOT l.granted AND l.locktype = 'relation'"
    " AND l.relation = ANY ({oids}::oid[])) AS had_waiters"
)
_RELEASED = "SELECT pg_catalog.clock_timestamp() AS released"
_CAP = (
    "SELECT pg_catalog.set_config('statement_timeout', greatest({cap} - held.ms, 1)::text, true),"
    " pg_catalog.set_config('lock_timeout', greatest(least({further}, {all_further} - held.ms), 1)::text,"
    " true)"
    " FROM (SELECT round(1000 * (extract(epoch FROM pg_catalog.clock_timestamp())"
    " - pg_catalog.current_setting('online_migrate.granted')::numeric))::int AS ms) AS held"
)
"""statement_timeout restarts with each statement of a message, and lock_timeout with each lock: so that the
cap is one on the whole hold, both are set to what is left of it, by the server's clock, before each
statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A relation of a window, by OID; partitions and inheriting tables are targets of their own."""

    oid: int
    schema: str
    name: str
    mode: LockMode
    is_table: bool
    may_lock: bool = True
    """LOCK TABLE asks for UPDATE, DELETE or TRUNCATE (manual, LOCK); a foreign key asks its parent for
    REFERENCES only.  Where the role has no more, the DDL itself takes the lock, within the same bounds.
    """

    @property
    def relation(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def is_lockable(self) -> bool:
        """Can LOCK TABLE have it, and is it more than what every writer holds?"""
        return self.is_table and self.may_lock and self.mode >= LockMode.SHARE_UPDATE_EXCLUSIVE

    def __str__(self) -> str:
        return f"{self.mode.sql} on {self.relation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """By the server's clock: when the strong lock was requested, granted and released."""

    asked: datetime
    granted: datetime
    released: datetime
    had_waiters: bool
    """another session waited for a lock on one of the relations when the change was made"""

    @property
    def waited_s(self) -> float:
        return (self.granted - self.asked).total_seconds()

    @property
    def held_s(self) -> float:
        return (self.released - self.granted).total_seconds()


def read_targets(connection: Connection, needs: Sequence[LockNeed]) -> tuple[Target, ...]:
    """Names to OIDs before the window, with partitions unless ``is_alone``, the strongest first; what is yet
    to be made has none.
    """
    found: dict[int, Target] = {}
    for need in needs:
        rows = connection.execute(
            _TARGETS, {"schema": need.schema, "name": need.name, "is_alone": need.is_alone}
        ).fetchall()
        for oid, schema, name, is_table, may_lock in rows:
            if oid not in found or found[oid].mode < need.mode:
                found[oid] = Target(
                    oid=oid, schema=schema, name=name, mode=need.mode, is_table=is_table, may_lock=may_lock
                )
    return tuple(sorted(found.values(), key=lambda t: (not t.is_table, -t.mode)))


def side_message(targets: Sequence[Target], timeout_s: float) -> sql.Composed:
    """BEGIN, SHARE UPDATE EXCLUSIVE on every table, and the transaction's id, by which a lost answer can be
    looked up.
    """
    parts: list[sql.Composable] = [sql.SQL("BEGIN"), _set("lock_timeout", timeout_s)]
    tables = [t.identifier for t in targets if t.is_lockable]
    if tables:
        names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(t) for t in tables)
        parts.append(sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(names))
    parts.append(sql.SQL("SELECT pg_catalog.pg_current_xact_id()::text AS xid"))
    return sql.SQL("; ").join(parts)


def window_message(
    targets: Sequence[Target],
    ddl: Sequence[sql.Composable],
    *,
    fence: Sql,
    timeout_s: float,
    ladder: Ladder,
    server_version: int,
) -> sql.Composed:
    """The fence, the question for the strong locks, the DDL, the comparison, COMMIT, and the time after it.

    The fence comes first: its row lock is kept until COMMIT, so a take-over waits for us, and nothing waits
    while it is asked.
    """
    cap_s = ladder.hold_cap_s
    parts: list[sql.Composable] = [
        _set("statement_timeout", timeout_s + cap_s),
        _set("idle_in_transaction_session_timeout", cap_s),
        sql.SQL("SET LOCAL synchronous_commit = 'local'"),
        _set("lock_timeout", timeout_s),
    ]
    if server_version >= 170000:  # the last resort: it ends the session, so it comes after statement_timeout
        parts.append(_set("transaction_timeout", timeout_s + cap_s + 0.5))
    cap = sql.SQL(_CAP).format(
        cap=sql.Literal(_ms(cap_s)),
        further=sql.Literal(_ms(ladder.further_s)),
        all_further=sql.Literal(_ms(ladder.all_further_s)),
    )
    locks = [
        sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(t.identifier, sql.SQL(t.mode.sql))
        for t in targets
        if t.is_lockable
    ]
    parts += [fence, sql.SQL(_ASKED), *locks[:1], sql.SQL(_GRANTED)]
    for statement in (*locks[1:], *ddl, _compare(targets)):
        parts += [cap, statement]
    waiters = sql.SQL(_WAITERS).format(oids=sql.Literal([t.oid for t in targets]))
    parts += [waiters, sql.SQL("COMMIT"), sql.SQL(_RELEASED)]
    return sql.SQL("\n;\n").join(parts)  # a statement may end with a comment


def read_times(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Times:
    """The three times, and whether others waited, among the results of a :func:`window_message`."""
    found: dict[str, Any] = {}
    while True:
        name = cursor.description[0].name if cursor.description else ""
        if name in ("asked", "granted", "had_waiters", "released") and (row := cursor.fetchone()) is not None:
            found[name] = row[0]
        if not cursor.nextset():
            return Times(**found)


def _compare(targets: Sequence[Target]) -> sql.Composed:
    body = sql.SQL(_COMPARE).format(
        modes=sql.Literal([m.pg_locks_mode for m in LockMode]),
        oids=sql.Literal([t.oid for t in targets]),
        levels=sql.Literal([int(t.mode) for t in targets]),
        declared=sql.Literal([t.mode.pg_locks_mode for t in targets]),
        names=sql.Literal([t.relation for t in targets]),
    )
    # as a literal: a name may hold whatever a dollar-quoted body ends with
    return sql.SQL("DO {}").format(sql.Literal(body.as_string(None)))


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1)


def _set(name: str, seconds: float) -> sql.Composed:
    return sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(f"{_ms(seconds)}ms"))
