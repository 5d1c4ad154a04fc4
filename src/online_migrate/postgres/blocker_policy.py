"""Ends blockers: only if the plan asks for it, by age and pattern, and never one whose end costs more than a
wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psycopg

from online_migrate.events import Note
from online_migrate.postgres.blockers import Blocker
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockerPolicy:
    """What the plan allows.  Seconds; ages are those of the transaction."""

    matching: str
    """a regular expression that must be found in 'user application: statement'"""
    older_than_s: float
    terminate_after_s: float | None
    """a transaction this much older than ``older_than_s`` is terminated, where cancelling did not help"""
    spare_writers: bool = True


def why_spared(blocker: Blocker, policy: BlockerPolicy) -> str | None:
    """Why this session is spared, or None if the policy may end it."""
    rules = (
        (blocker.prepared is not None, "it is a prepared transaction"),
        (bool(blocker.standby), "it is on a standby"),
        (blocker.is_wraparound, "a vacuum to prevent wraparound"),
        (blocker.backend_type not in ("client backend", "parallel worker"), f"{blocker.backend_type}"),
        (blocker.is_superuser, "a superuser's"),
        (_is_strong(blocker), "it holds a strong lock, which was taken on purpose"),
        (policy.spare_writers and blocker.has_written, "it has written"),
        (blocker.age_s is None or blocker.age_s < policy.older_than_s, "not old enough"),
        (re.search(policy.matching, _described(blocker)) is None, "it does not match"),
    )
    return next((reason for is_so, reason in rules if is_so), None)


def _is_strong(blocker: Blocker) -> bool:
    return blocker.is_granted and LockMode.from_pg_locks(blocker.mode).is_strong


def _described(blocker: Blocker) -> str:
    return f"{blocker.user or ''} {blocker.application or ''}: {blocker.query}"


@dataclass(slots=True, kw_only=True)
class BlockerEnder:
    """Cancels, then terminates, what the policy does not spare; reports each that it ends."""

    policy: BlockerPolicy
    watch: Connection
    emit: Callable[..., None]
    _signalled: set[tuple[str, int]] = field(default_factory=set)

    def act(self, blockers: Iterable[Blocker]) -> None:
        """At each check: cancel the blockers that are old enough; terminate those that are idle, or older
        still.
        """
        for blocker in blockers:
            if blocker.pid is None or why_spared(blocker, self.policy) is not None:
                continue
            how = self._how(blocker)
            if how is not None and (how, blocker.pid) not in self._signalled:
                self._signalled.add((how, blocker.pid))
                self._signal(how, blocker.pid, blocker)

    def _how(self, blocker: Blocker) -> str | None:
        after_s = self.policy.terminate_after_s
        is_due = after_s is not None and (blocker.age_s or 0.0) >= self.policy.older_than_s + after_s
        if is_due:
            return "pg_terminate_backend"
        return None if (blocker.state or "").startswith("idle") else "pg_cancel_backend"

    def _signal(self, how: str, pid: int, blocker: Blocker) -> None:
        try:
            row = self.watch.execute(f"SELECT {how}(%s)", [pid]).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            self.emit(Note, message=f"blocker policy: {how}({pid}) refused: {error.diag.message_primary}")
            return
        done = row is not None and bool(row[0])
        self.emit(Note, message=f"blocker policy: {how} {'ended' if done else 'did not find'} {blocker}")
