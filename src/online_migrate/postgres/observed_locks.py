"""What a session holds, seen by another one: the proof for statements that cannot run in a transaction of
ours.

A lock window compares within its own transaction (:mod:`window_message`); a concurrent build commits several
times, so a second session samples pg_locks beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode, LockNeed

_HELD = """
SELECT n.nspname, c.relname, l.mode
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE l.pid = %(pid)s AND l.locktype = 'relation'
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'online_migrate')"""


def read_held(connection: Connection, pid: int) -> tuple[LockNeed, ...]:
    """Every lock above ROW EXCLUSIVE that the session holds or asks for.  A relation that it makes and has
    not committed is not seen from here: no other session can wait behind such a lock either.
    """
    rows = connection.execute(_HELD, {"pid": pid}).fetchall()
    found = [LockNeed(schema=s, name=n, mode=LockMode.from_pg_locks(m)) for s, n, m in rows]
    return tuple(n for n in found if n.mode > LockMode.ROW_EXCLUSIVE)


def surplus(held: Iterable[LockNeed], declared: Iterable[LockNeed]) -> tuple[LockNeed, ...]:
    """What is held and stronger than declared, or not declared at all."""
    modes = {(n.schema, n.name): n.mode for n in declared}
    return tuple(n for n in held if n.mode > modes.get((n.schema, n.name), LockMode.ROW_EXCLUSIVE))
