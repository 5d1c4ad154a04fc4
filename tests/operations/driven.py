"""How a step of a site is driven: cut off in the middle, and its statements one by one, with their locks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from online_migrate.events import LockAttemptFailed, LockHeld
from online_migrate.operations.contract.base import Statement
from tests.operations.beside import Held, read_held
from tests.operations.site import Site


class Cut(BaseException):
    """The runner was killed: nothing catches this."""


@contextmanager
def cut_off_after(site: Site, statements: int) -> Iterator[None]:
    """The work session is cut before its next statement, when so many were sent; watched ones run in their
    own thread.
    """
    left = iter(range(statements))

    def count() -> None:
        if threading.current_thread() is threading.main_thread() and next(left, None) is None:
            site.sessions.work.close()
            raise Cut

    site.sessions.work.on_statement = count  # type: ignore[attr-defined]  # the connector's hook for fault injection
    yield
    site.sessions.work.on_statement = None  # type: ignore[attr-defined]


def locks_of(site: Site, window: list[Statement], names: dict[int, str]) -> Held:
    """What one transaction with these statements holds at its end."""
    with site.app.transaction():
        for statement in window:
            site.app.execute(statement.sql)
        return read_held(site.app, site.app.info.backend_pid, names)


def longest_window_s(site: Site) -> float:
    """How long a statement could have waited behind our request: the wait for the lock, and its hold."""
    held = [e.waited_s + e.held_s for e in site.heard.of(LockHeld)]
    gave_way = [e.waited_s for e in site.heard.of(LockAttemptFailed)]
    return max([0.0, *held, *gave_way])
