"""The advisory lock that every session of a runner holds, and how others find these sessions by it."""

from __future__ import annotations

from typing import Final

ADVISORY_KEY: Final = (0x6F6D6967, 1)
"""'omig', 1: the two-integer form, so that pg_locks shows classid and objid"""

SESSIONS: Final = (
    "SELECT l.pid, coalesce(a.application_name, '?')"  # noqa: S608  # two numbers
    " FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)"
    f" WHERE l.locktype = 'advisory' AND l.classid = {ADVISORY_KEY[0]} AND l.objid = {ADVISORY_KEY[1]}"
    " AND l.objsubid = 2 AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.pid <> pg_backend_pid()"
)
"""that hold our advisory lock in this database, but for the one that asks"""
