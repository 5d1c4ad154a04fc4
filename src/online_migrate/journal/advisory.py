"""The advisory lock that every session of a runner holds, and how others find these sessions by it."""

from __future__ import annotations

from typing import Final

ADVISORY_KEY: Final = (0x6F6D6967, 1)
"""'omig', 1: the two-integer form, so that pg_locks shows classid and objid"""

HELD: Final = (
    f"l.locktype = 'advisory' AND l.classid = {ADVISORY_KEY[0]} AND l.objid = {ADVISORY_KEY[1]}"  # noqa: S608  # two numbers
    " AND l.objsubid = 2 AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.pid <> pg_backend_pid()"
)
"""of a row ``l`` of pg_locks: it is our advisory lock in this database, of another session than the one that
asks"""
SESSIONS: Final = (
    "SELECT l.pid, coalesce(a.application_name, '?')"  # noqa: S608  # a constant of ours
    f" FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE {HELD}"
)
"""that hold our advisory lock in this database, but for the one that asks"""
