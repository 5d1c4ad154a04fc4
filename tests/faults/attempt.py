"""One attempt: a stage of the plan, run while faults strike it, and compared with the undisturbed run."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Final

from tests.faults.boundaries import Boundaries
from tests.faults.kinds import Kind
from tests.faults.proxy import Cut, Proxy, Request
from tests.faults.runners import send, start_runner
from tests.faults.site import Site, dsn_of

_STALE: Final = "UPDATE online_migrate.heartbeat SET beat_at = clock_timestamp() - interval '10 minutes'"
_TAKES_OVER: Final = b"UPDATE online_migrate.epoch SET"
_CONTINUE_AFTER: Final = 15
"""requests of the second runner, once it has the lease: it is at work when the first wakes up"""
_FULL_REQUESTS: Final = 30
_FULL_S: Final = 1.0
_EACH_S: Final = 20.0
_WHOLE_S: Final = 120.0
_EXIT_LEASE_LOST: Final = 6
_MORE_RUNS: Final = 5
"""runs that an attempt may have beside one for each fault"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attempt."""

    kind: str
    stage: str
    struck: tuple[str, ...]
    """the boundaries"""
    exits: dict[str, int]
    """how often each exit code was seen"""
    seconds: float
    differences: tuple[str, ...]
    """from the undisturbed end; empty where it is equal"""

    @property
    def is_equal(self) -> bool:
        return not self.differences


@dataclass(slots=True, kw_only=True, eq=False)
class Running:
    """A runner, with a proxy of its own."""

    proxy: Proxy
    boundaries: Boundaries
    process: BaseProcess = field(init=False)
    is_stopped: bool = False
    wakes_at: int = 0
    """when the proxy of the runner that has taken over has seen so many requests"""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """Strikes the boundaries in ``wanted`` as the runner comes to them, at most ``most`` of them."""

    site: Site
    kind: Kind
    stage: str
    wanted: set[str]
    most: int
    dice: Random
    log: Path
    struck: list[tuple[str, str]] = field(init=False, default_factory=list)
    """boundary and statement"""
    _running: list[Running] = field(init=False, default_factory=list)
    _exits: Counter[str] = field(init=False, default_factory=Counter)
    _failing_over_in: int = field(init=False, default=0)
    _is_full: int = field(init=False, default=0)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)
    _timer: threading.Timer = field(init=False, default_factory=lambda: threading.Timer(0, lambda: None))
    _busy: threading.Event = field(init=False, default_factory=threading.Event)
    """a fault that takes its time is striking: no other one begins"""
    _is_down: threading.Event = field(init=False, default_factory=threading.Event)
    """no server can be reached: a failover is on its way"""
    _has_ended_before: bool = field(init=False, default=False)
    """the last run had ended when a failover took its last commits back: it is run again"""
    _trouble: list[BaseException] = field(init=False, default_factory=list)

    def run(self) -> Outcome:
        """Raises what goes wrong with the site; what goes wrong with the runner is in the outcome."""
        began = monotonic()
        with self.site.database_before(self.stage) as database:
            with self._standby():
                ended = self._run_to_the_end(database)
            found = self.site.read_end(database) if ended else None
        expected = self.site.ends[self.stage]
        differences = ["the run did not come to its end"] if found is None else expected.differences(found)
        return Outcome(
            kind=self.kind.name,
            stage=self.stage,
            struck=tuple(boundary for boundary, _ in self.struck),
            exits=dict(self._exits),
            seconds=monotonic() - began,
            differences=tuple(differences),
        )

    @contextmanager
    def _standby(self) -> Iterator[None]:
        if self.kind.needs_standby and self.site.standby is None:
            self.site.attach_standby(is_synchronous=self.kind.is_synchronous)
        try:
            yield
        finally:
            if self.kind.needs_standby:
                self.site.drop_standby()

    def _run_to_the_end(self, database: str) -> bool:
        """Whether the last run ended with exit code 0, in time."""
        deadline = monotonic() + _WHOLE_S + _EACH_S * min(self.most, len(self.wanted))
        try:
            while sum(self._exits.values()) < self.most + _MORE_RUNS:
                self._start(database)
                code = self._await_last(deadline)
                if code is None:
                    return False
                if (
                    self._failing_over_in
                ):  # it ended before the failover, which loses its last commits all the same
                    self.fail_over_after(0)
                    self.fail_over()
                elif code == 0 and not self._has_ended_before:
                    return True
                self._has_ended_before = False
            return False
        finally:
            self._end()

    def _start(self, database: str) -> None:
        proxy = Proxy(target=self.site.primary.port)
        running = Running(proxy=proxy, boundaries=Boundaries(self.stage))
        proxy.at_request = partial(self._at_request, running)
        running.process = start_runner(
            *self.site.arguments_of(self.stage),
            dsn=dsn_of(proxy.port, database),
            folder=self.site.folder,
            log=self.log,
        )
        self._running.append(running)

    def _await_last(self, deadline: float) -> int | None:
        """The exit code of the runner that was started last and those that it took over from; None: not in
        time.
        """
        while monotonic() < deadline:
            running = self._running[-1]
            running.process.join(0.05)
            if self._trouble:
                raise self._trouble[0]
            if running.process.exitcode is None or running is not self._running[-1]:
                continue
            if self._busy.is_set():
                self._has_ended_before |= self._is_down.is_set()
                sleep(0.01)
                continue
            self._wake_stopped()
            return self._note_exits()
        self._exits["none in time"] += 1
        return None

    def _note_exits(self) -> int:
        """Those taken over from must say that they lost the lease, whatever they were doing."""
        *earlier, last = self._running
        for running in earlier:
            running.process.join(_EACH_S)
            self._exits[str(running.process.exitcode)] += 1
        code = last.process.exitcode
        assert code is not None
        self._exits[str(code)] += 1
        if self.site.disk is not None:
            self._free()
        self._end()
        return code

    def _wake_stopped(self) -> None:
        for running in self._running:
            if running.is_stopped:
                running.is_stopped = False
                send(running.process, signal.SIGCONT)

    def _end(self) -> None:
        """End every runner, and close the proxies."""
        for running in self._running:
            if running.process.exitcode is None:
                running.process.kill()
            running.process.join()
            running.process.close()
            running.proxy.close()
        self._running.clear()
        if self.site.disk is not None:
            self.site.free_disk()

    # at a request

    def _at_request(self, running: Running, request: Request) -> Cut:
        with self._lock:
            boundary = running.boundaries.name(request)
            self._count_down(running, request)
            is_struck = (
                boundary in self.wanted
                and len(self.struck) < self.most
                and not self._busy.is_set()
                and not self._failing_over_in
                and not self._is_full
                and self._running
                and running is self._running[-1]
            )
            if not is_struck:
                return Cut.NOTHING
            self.wanted.discard(boundary)
            self.struck.append((boundary, f"{request.session}: {request.text}"))
            try:
                return self.kind.strike(self, running, request)
            except BaseException as error:
                self._trouble.append(error)
                raise

    def _count_down(self, running: Running, request: Request) -> None:
        if self._failing_over_in:
            self._failing_over_in -= 1
            if not self._failing_over_in:
                self.meanwhile(self.fail_over)
        if self._is_full:
            self._is_full -= 1
            if not self._is_full:
                self._free()
        if _TAKES_OVER in request.statement:
            running.wakes_at = request.number + _CONTINUE_AFTER
        if request.number == running.wakes_at:
            self._wake_stopped()

    # what strikes need

    def kill(self, running: Running) -> None:
        """SIGKILL."""
        send(running.process, signal.SIGKILL)

    def stop(self, running: Running) -> None:
        """SIGSTOP, and a second runner, for which the first one's heartbeat is too old."""
        send(running.process, signal.SIGSTOP)
        running.is_stopped = True
        self.meanwhile(self._take_over)

    def _take_over(self) -> None:
        if self.site.has_journal("attempt"):
            self.site.execute_in("attempt", _STALE)
        with self._lock:
            self._start("attempt")

    def fail_over(self) -> None:
        """The standby becomes the primary, and the old primary its standby."""
        self._is_down.set()
        self.site.fail_over()
        for running in self._running:
            running.proxy.target = self.site.primary.port
        self._is_down.clear()
        self.site.attach_standby(is_synchronous=self.kind.is_synchronous)

    def fail_over_after(self, requests: int) -> None:
        """That many requests from now."""
        self._failing_over_in = requests

    def fill_disk(self) -> None:
        """Until 30 requests later, or 1 s, or the end of the run."""
        self.site.fill_disk()
        self._is_full = _FULL_REQUESTS
        self._timer = threading.Timer(_FULL_S, self._free)
        self._timer.start()

    def _free(self) -> None:
        with self._lock:
            self._is_full = 0
            self._timer.cancel()
            self.site.free_disk()

    def meanwhile(self, work: Callable[[], None]) -> None:
        """Do it beside the statement that was struck."""
        self._busy.set()

        def do() -> None:
            try:
                sleep(self.dice.random() * 0.005)
                work()
            except BaseException as error:  # noqa: BLE001  # raised by the thread that waits for the attempt
                self._trouble.append(error)
            finally:
                self._busy.clear()

        threading.Thread(target=do, daemon=True).start()
