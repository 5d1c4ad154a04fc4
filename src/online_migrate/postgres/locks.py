"""Lock levels of PostgreSQL and which conflict; pure.

Source: PostgreSQL manual, 13.3.1 "Table-Level Locks", table 13.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class LockMode(IntEnum):
    """Table-level locks, weakest first, by their number in the server's source (``lockdefs.h``)."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def sql(self) -> str:
        """As LOCK TABLE spells it: ``ACCESS EXCLUSIVE``."""
        return self.name.replace("_", " ")

    @property
    def pg_locks_mode(self) -> str:
        """As pg_locks.mode spells it: ``AccessExclusiveLock``."""
        return self.name.title().replace("_", "") + "Lock"

    @property
    def is_strong(self) -> bool:
        """Does it conflict with what applications do: SELECT, INSERT, UPDATE, DELETE?"""
        return self >= LockMode.SHARE

    @property
    def waits_behind(self) -> str:
        """Which statements of an application wait behind it."""
        if self is LockMode.ACCESS_EXCLUSIVE:
            return "reads and writes"
        if self is LockMode.EXCLUSIVE:
            return "writes and SELECT … FOR UPDATE"
        if self.is_strong:
            return "writes"
        return "nothing of the application"

    def conflicts_with(self, other: LockMode) -> bool:
        """Can two sessions not hold these two on one table at once?"""
        return other in CONFLICTS[self]

    @classmethod
    def from_pg_locks(cls, mode: str) -> LockMode:
        """``AccessExclusiveLock`` → ACCESS_EXCLUSIVE."""
        return _BY_PG_LOCKS_MODE[mode]


_M = LockMode
CONFLICTS: dict[LockMode, frozenset[LockMode]] = {
    _M.ACCESS_SHARE: frozenset({_M.ACCESS_EXCLUSIVE}),
    _M.ROW_SHARE: frozenset({_M.EXCLUSIVE, _M.ACCESS_EXCLUSIVE}),
    _M.ROW_EXCLUSIVE: frozenset({_M.SHARE, _M.SHARE_ROW_EXCLUSIVE, _M.EXCLUSIVE, _M.ACCESS_EXCLUSIVE}),
    _M.SHARE_UPDATE_EXCLUSIVE: frozenset(m for m in _M if m >= _M.SHARE_UPDATE_EXCLUSIVE),
    _M.SHARE: frozenset(m for m in _M if m >= _M.ROW_EXCLUSIVE and m is not _M.SHARE),
    _M.SHARE_ROW_EXCLUSIVE: frozenset(m for m in _M if m >= _M.ROW_EXCLUSIVE),
    _M.EXCLUSIVE: frozenset(m for m in _M if m >= _M.ROW_SHARE),
    _M.ACCESS_EXCLUSIVE: frozenset(_M),
}
_BY_PG_LOCKS_MODE = {m.pg_locks_mode: m for m in LockMode}


@dataclass(frozen=True, slots=True, kw_only=True)
class LockNeed:
    """The strongest lock that a statement takes on one relation, and whether it is held for long.

    ``relation`` is ``schema.name`` as an operator reads it; ``is_long`` means that it is held for as long as
    a scan lasts (only ever a mode that no statement of the application waits behind).  ``is_alone``: of a
    partitioned table or index, not of what is below it; a window otherwise locks that, too.
    """

    schema: str
    name: str
    mode: LockMode
    is_long: bool = False
    is_alone: bool = False

    @property
    def relation(self) -> str:
        return f"{self.schema}.{self.name}"

    def __str__(self) -> str:
        return f"{self.mode.sql} on {self.relation}"


def strongest(needs: Iterable[LockNeed]) -> tuple[LockNeed, ...]:
    """One need a relation: the strongest, in the order in which the relations are first named."""
    found: dict[tuple[str, str], LockNeed] = {}
    for need in needs:
        known = found.get((need.schema, need.name))
        if known is None or known.mode < need.mode:
            found[need.schema, need.name] = need
    return tuple(found.values())
