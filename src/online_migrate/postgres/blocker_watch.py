"""Reads the sessions that block a lock window, here and on the standbys, and ends those that the plan allows
to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from online_migrate.events import BlockersSeen
from online_migrate.postgres.blocker_policy import BlockerEnder, BlockerPolicy
from online_migrate.postgres.blockers import Blocker, read_blockers
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.ladder import parse_milliseconds
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.standbys import Standbys
from online_migrate.postgres.window_message import Target

_DEADLOCK_TIMEOUTS = """
SELECT current_setting('deadlock_timeout'), true
UNION ALL
SELECT substr(setting, length('deadlock_timeout=') + 1), false
  FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
 WHERE setting LIKE 'deadlock_timeout=%'
   AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"""


@dataclass(slots=True, kw_only=True)
class BlockerWatch:
    """Looks through ``watch`` at everyone but the session ``mine``; keeps whom it saw last."""

    watch: Connection
    mine: int
    age_s: float
    """a blocking transaction older than this is waited for outside the lock's queue"""
    policy: BlockerPolicy | None
    emit: Callable[..., None]
    standbys: Standbys = field(default_factory=Standbys)
    blockers: tuple[Blocker, ...] = ()
    _enforcer: BlockerEnder | None = field(init=False)

    def __post_init__(self) -> None:
        self._enforcer = (
            None
            if self.policy is None
            else BlockerEnder(policy=self.policy, watch=self.watch, emit=self.emit)
        )

    def look(self, targets: Iterable[Target]) -> tuple[Blocker, ...]:
        """Blockers that will not end in a moment; an ordinary autovacuum is none, it
        yields to the weak lock.
        """
        needs = [(t.oid, t.mode) for t in targets]
        seen = read_blockers(self.watch, needs, mine=[self.mine])
        self.blockers = (*(b for b in seen if not b.is_autovacuum), *self.standbys.look(needs))
        return tuple(
            b for b in self.blockers if b.prepared is not None or b.age_s is None or b.age_s > self.age_s
        )

    def look_at_the_side(self, targets: Sequence[Target]) -> None:
        """Who keeps SHARE UPDATE EXCLUSIVE from us: vacuums, concurrent builds, other migrations.  Said."""
        tables = [t for t in targets if t.is_lockable]
        needs = [(t.oid, LockMode.SHARE_UPDATE_EXCLUSIVE) for t in tables]
        self.blockers = read_blockers(self.watch, needs, mine=[self.mine])
        self.say(self.blockers, f"SHARE UPDATE EXCLUSIVE on {', '.join(t.relation for t in tables)}")

    def end_by_rule(self, blockers: Iterable[Blocker]) -> None:
        """End what the plan's policy allows; without one, nothing."""
        if self._enforcer is not None:
            self._enforcer.act(blockers)

    def say(self, blockers: Sequence[Blocker], waiting_for: str) -> None:
        """Report the blockers."""
        self.emit(BlockersSeen, waiting_for=waiting_for, blockers=tuple(map(str, blockers)))


def read_deadlock_timeouts(connection: Connection) -> tuple[float, float]:
    """deadlock_timeout of this session, and the shortest that a role or this database has by ALTER … SET;
    seconds.
    """
    rows = connection.execute(_DEADLOCK_TIMEOUTS).fetchall()
    times = [(ms / 1000, own) for text, own in rows if (ms := parse_milliseconds(text)) is not None]
    return next(s for s, own in times if own), min(s for s, _ in times)
