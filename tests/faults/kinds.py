"""The kinds of faults: what each does at a boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.faults.proxy import Cut, Request

if TYPE_CHECKING:
    from tests.faults.attempt import Attempt, Running

Strike = Callable[["Attempt", "Running", Request], Cut]

REFUSE_S: Final = 0.5
LOST_REQUESTS: Final = 40
"""an asynchronous failover loses what was committed during at most so many requests"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A fault.  ``strike`` is called at the boundary, before the server gets the request."""

    name: str
    what: str
    strike: Strike
    needs_standby: bool = False
    is_synchronous: bool = False
    needs_disk: bool = False


def _cut(cut: Cut) -> Strike:
    return lambda _attempt, _running, _request: cut


def _refuse(_attempt: Attempt, running: Running, _request: Request) -> Cut:
    running.proxy.cut_all(refuse_s=REFUSE_S)
    return Cut.BEFORE


def _terminate(attempt: Attempt, _running: Running, request: Request) -> Cut:
    attempt.site.execute_in("postgres", "SELECT pg_terminate_backend(%s, 5000)", [request.pid])
    return Cut.NOTHING


def _kill(attempt: Attempt, running: Running, _request: Request) -> Cut:
    attempt.kill(running)
    return Cut.AFTER


def _stop(attempt: Attempt, running: Running, _request: Request) -> Cut:
    attempt.stop(running)
    return Cut.NOTHING


def _crash(attempt: Attempt, _running: Running, _request: Request) -> Cut:
    attempt.meanwhile(attempt.site.crash)
    return Cut.NOTHING


def _fail_over(attempt: Attempt, _running: Running, _request: Request) -> Cut:
    attempt.meanwhile(attempt.fail_over)
    return Cut.NOTHING


def _lose(attempt: Attempt, _running: Running, _request: Request) -> Cut:
    attempt.site.detach_standby()
    attempt.fail_over_after(attempt.dice.randint(1, LOST_REQUESTS))
    return Cut.NOTHING


def _fill(attempt: Attempt, _running: Running, _request: Request) -> Cut:
    attempt.fill_disk()
    return Cut.NOTHING


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind(
            name="before",
            what="the connection is cut, the server never gets the statement",
            strike=_cut(Cut.BEFORE),
        ),
        Kind(
            name="after",
            what="the connection is cut while the server executes the statement",
            strike=_cut(Cut.AFTER),
        ),
        Kind(
            name="answer",
            what="the server has executed and committed, and the answer is lost",
            strike=_cut(Cut.ANSWER),
        ),
        Kind(
            name="half-open",
            what="the runner's side is reset, the server's side stays open",
            strike=_cut(Cut.HALF_OPEN),
        ),
        Kind(
            name="swallow",
            what="nothing arrives on either side for 2 s, then a reset",
            strike=_cut(Cut.SWALLOW),
        ),
        Kind(name="refuse", what="all connections are cut and new ones refused for 0.5 s", strike=_refuse),
        Kind(name="terminate", what="pg_terminate_backend of the session", strike=_terminate),
        Kind(name="kill", what="SIGKILL of the runner, which is then started again", strike=_kill),
        Kind(
            name="stop",
            what="SIGSTOP of the runner until a second one has taken over, then SIGCONT",
            strike=_stop,
        ),
        Kind(name="crash", what="immediate stop of the server, restart with recovery", strike=_crash),
        Kind(
            name="failover",
            what="the primary crashes, its synchronous standby is promoted",
            strike=_fail_over,
            needs_standby=True,
            is_synchronous=True,
        ),
        Kind(
            name="lossy-failover",
            what=f"the same with an asynchronous standby that misses what up to {LOST_REQUESTS} statements"
            " committed",
            strike=_lose,
            needs_standby=True,
        ),
        Kind(
            name="disk-full",
            what="the database's disk has no free block for 30 statements",
            strike=_fill,
            needs_disk=True,
        ),
    )
}
"""in the order in which they are reported"""
