"""How long to ask for a strong lock, how long to rest, and when to give up; pure.

A ladder and not a hammer: short questions first, longer ones later, never as long as deadlock_timeout,
because the one who has waited that long in a deadlock is the one whose transaction the server ends (manual,
20.12 "Lock Management").
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

FIRST_TIMEOUT_S = 0.05
"""50 ms: what the first try makes the application wait at most"""
LADDER_STEP = 1.5
"""growth of lock_timeout from try to try"""
SHARE_OF_DEADLOCK_TIMEOUT = 0.8
"""the longest lock_timeout: at deadlock_timeout the application could become a deadlock's victim"""
FURTHER_SHARE = 0.25
"""a second strong lock gets at most this share of deadlock_timeout while the first
is held (postgres-facts 6)"""
ALL_FURTHER_SHARE = 0.5
"""and all further locks together this share: application statements may wait behind the first of them all
that time"""
LEAST_TIMEOUT_S = 0.005
"""with less left of a budget than 5 ms, asking is no more than a nuisance: the budget counts as spent"""
REST_S = 0.1
"""between two windows on one relation, where statements waited behind the first: they run before the second
asks"""

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "min": 60_000.0, "": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The bounds of one window.  Seconds.

    ``deadlock_timeout_s`` is the shortest that any session of the application may have.
    """

    deadlock_timeout_s: float
    hold_cap_s: float

    def timeout_s(self, attempt: int, left_s: float) -> float:
        """lock_timeout of the ``attempt``-th try, the first being 1, with ``left_s`` left of the exposure
        budget.
        """
        longest = min(SHARE_OF_DEADLOCK_TIMEOUT * self.deadlock_timeout_s, self.hold_cap_s, left_s)
        steps = min(attempt - 1, 50)  # enough for any ladder; a float has no more room for powers without end
        return float(min(FIRST_TIMEOUT_S * LADDER_STEP**steps, longest))

    @property
    def further_s(self) -> float:
        """lock_timeout of each further lock, while the first is held."""
        return min(FURTHER_SHARE * self.deadlock_timeout_s, self.hold_cap_s / 4)

    @property
    def all_further_s(self) -> float:
        """What all further locks together may wait."""
        return min(ALL_FURTHER_SHARE * self.deadlock_timeout_s, self.hold_cap_s / 2)


@dataclass(slots=True, kw_only=True)
class Exposure:
    """Seconds in which application statements could have waited behind our lock requests, of a run: by
    relation and in all.

    Kept for the run's process only: an operator who starts it again after exit 4 has checked the blockers.
    """

    by_relation: dict[str, float] = field(default_factory=dict)
    total_s: float = 0.0
    _released: dict[str, float] = field(default_factory=dict)

    def add(self, relations: Collection[str], seconds: float) -> None:
        """A try is over, in which statements on ``relations`` may have waited for up to ``seconds``."""
        self.total_s += seconds
        for relation in relations:
            self.by_relation[relation] = self.by_relation.get(relation, 0.0) + seconds

    def left_s(self, relations: Collection[str], *, per_relation_s: float, in_all_s: float) -> float:
        """What is left of both budgets for a window over ``relations``; never below 0."""
        spent = max((self.by_relation.get(r, 0.0) for r in relations), default=0.0)
        return max(min(per_relation_s - spent, in_all_s - self.total_s), 0.0)

    def note_released(self, relations: Collection[str], now: float) -> None:
        """Strong locks on ``relations`` were released at ``now`` (monotonic)."""
        self._released.update(dict.fromkeys(relations, now))

    def rest_s(self, relations: Collection[str], now: float) -> float:
        """How long a next window over ``relations`` has to wait, so that windows are spaced."""
        latest = max((self._released[r] for r in relations if r in self._released), default=None)
        return 0.0 if latest is None else max(latest + REST_S - now, 0.0)


def parse_milliseconds(setting: str) -> float | None:
    """A time as postgresql.conf writes it, in milliseconds where it has no unit:
    ``500ms``, ``2s``, ``1000``.
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*(us|ms|s|min|)\s*", setting)
    return None if found is None else float(found[1]) * _UNITS_MS[found[2]]
