"""What an error of the server means for us: SQLSTATEs sorted in one place.

Source: PostgreSQL manual, appendix A "PostgreSQL Error Codes".
"""

from __future__ import annotations

from enum import Enum

import psycopg

FENCE_LOST = "OM006"
"""Raised by the journal's fence(): another epoch is in force."""
LOCK_MISMATCH = "OM004"
"""Raised by a lock window's comparison: a lock that was not declared."""
NOT_AS_PROMISED = "OM005"
"""Raised by an assertion within a lock window: what its change relies on no longer exists."""
CURSOR_MOVED = "OM008"
"""Raised by the journal's advance(): the cursor is not where we left it."""


class ErrorClass(Enum):
    """How to go on after an error."""

    LOCK = "lock"
    """55P03, 40P01, an uncalled-for 57014: roll back, pause, try again"""
    LOST = "lost connection"
    """the session has ended: reconnect, read epoch and cursor again"""
    UNAVAILABLE = "server unavailable"
    """starting, stopping, read-only, no connections left: wait and try again"""
    RESOURCES = "resources"
    """no disk, memory or locks left, or storage that fails: stop; whatever the
    statement, it would fail again"""
    FENCE = "fence"
    """another runner took over: write nothing more"""
    PROGRAM = "program"
    """everything else: stop loudly"""


_LOCK = {"55P03", "40P01", "57014"}
_UNAVAILABLE = {"57P03", "53300", "25006"}
"""25006 is a server that was demoted to a standby under us: our sessions begin on a primary (Connector.open)
and set default_transaction_read_only off, whatever the role has, so that no setting is taken for a failover.
"""
_RESOURCES = ("53", "58", "F0")
"""classes: insufficient resources, system error, configuration file error"""
_LOST = {"57P01", "57P02", "57P05", "25P03", "25P04"}


def error_class(error: psycopg.Error) -> ErrorClass:
    """Sort an error of psycopg."""
    state = error.sqlstate
    if state is None:
        return (
            ErrorClass.LOST
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            else ErrorClass.PROGRAM
        )
    if state == FENCE_LOST:
        return ErrorClass.FENCE
    if state in _LOCK:
        return ErrorClass.LOCK
    if state in _UNAVAILABLE:
        return ErrorClass.UNAVAILABLE
    if state in _LOST or state.startswith("08"):
        return ErrorClass.LOST
    return ErrorClass.RESOURCES if state.startswith(_RESOURCES) else ErrorClass.PROGRAM


def is_connection_lost(error: psycopg.Error) -> bool:
    """The connection ended, or the server accepts none now: nothing more can be asked on it."""
    return error_class(error) in (ErrorClass.LOST, ErrorClass.UNAVAILABLE)
