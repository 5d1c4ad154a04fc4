"""The shop's application: several connections that record every latency and every error, and retry nothing.

One extra client keeps a prepared ``SELECT *``: PostgreSQL refuses it once after any ADD COLUMN (0A000).
Those refusals are counted as plan invalidations, not as failures.
"""

from __future__ import annotations

import itertools
import math
import threading
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Final, Self

import psycopg

from online_migrate.clock import Signal, SystemClock
from online_migrate.demo.release import KINDS, NEW_CUSTOMERS_FROM, Bot, Customer, UnexpectedRows

_APPLICATION: Final = "shop"
_TRANSACTIONS_PER_S: Final = 80.0  # of all connections together; leaves most of 2 cores to server and runner
_STAR_EVERY_S: Final = 0.2
_SWITCH_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A transaction of the application that did not commit."""

    period: str
    kind: str
    sqlstate: str
    """empty where there is none: a look-up without exactly one row, a connection that broke"""
    message: str

    def __str__(self) -> str:
        return f"{self.period}, {self.kind}: {self.sqlstate} {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The transactions that began in one period; the latencies are of those that committed."""

    transactions: int
    failures: int
    p50_ms: float
    p99_ms: float
    longest_ms: float


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted ``values``: the first that ``share`` of them do not exceed; 0.0
    of none.
    """
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


class Record:
    """What was measured; written by all workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies: dict[str, array[float]] = {"": array("d")}
        self._failures: list[Failure] = []
        self.period = ""

    def mark(self, period: str) -> None:
        """Transactions that begin from now on belong to ``period``."""
        with self._lock:
            self._latencies.setdefault(period, array("d"))
            self.period = period

    def add(self, period: str, seconds: float) -> None:
        with self._lock:
            self._latencies[period].append(seconds)

    def add_failure(self, failure: Failure) -> None:
        with self._lock:
            self._failures.append(failure)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every failure so far, in all periods."""
        with self._lock:
            return tuple(self._failures)

    def summary(self, period: str) -> Summary:
        """Transactions, failures and latencies of a period; raises KeyError for one that was never marked."""
        with self._lock:
            latencies = sorted(self._latencies[period])
            failures = sum(f.period == period for f in self._failures)
        return Summary(
            transactions=len(latencies) + failures,
            failures=failures,
            p50_ms=percentile(latencies, 0.50) * 1000,
            p99_ms=percentile(latencies, 0.99) * 1000,
            longest_ms=percentile(latencies, 1.0) * 1000,
        )


class _Client(threading.Thread, ABC):
    """One connection of the application: none of the runner's settings, and psycopg prepares statements by
    default.
    """

    def __init__(
        self, dsn: str, record: Record, signal: Signal, *, name: str, every_s: float, dice: Random
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._dsn = dsn
        self._record = record
        self._signal = signal
        self._every_s = every_s
        self._dice = dice
        self._clock = SystemClock()

    def run(self) -> None:
        while not self._signal.is_stopping:
            try:
                with psycopg.connect(self._dsn, application_name=_APPLICATION, autocommit=True) as connection:
                    self.serve(connection)
            except psycopg.Error as error:
                self.note("connect", error)
                self.pause()

    @abstractmethod
    def serve(self, connection: psycopg.Connection) -> None:
        """Work until stopped or until the connection is lost."""

    def note(self, kind: str, error: Exception, period: str | None = None) -> None:
        sqlstate = (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
        where = self._record.period if period is None else period
        self._record.add_failure(
            Failure(period=where, kind=kind, sqlstate=sqlstate, message=str(error).strip())
        )

    def pause(self) -> bool:
        """Wait as long as a customer does between two actions; True when stopped."""
        return self._clock.wait(self._every_s * self._dice.uniform(0.5, 1.5), self._signal)


class _Worker(_Client):
    """Runs transactions of all kinds, each for one of the bots."""

    bots: tuple[Bot, ...] = ()
    """replaced as a whole, taken up between transactions"""
    seen: tuple[Bot, ...] = ()

    def serve(self, connection: psycopg.Connection) -> None:
        while not self._signal.is_stopping and not connection.closed:
            self.seen = self.bots
            self._transact(connection, self._dice.choice(self.seen))
            self.pause()

    def _transact(self, connection: psycopg.Connection, bot: Bot) -> None:
        (kind,) = self._dice.choices(list(KINDS), weights=list(KINDS.values()))
        period, start = self._record.period, self._clock.monotonic()
        customer = Customer(connection=connection, bot=bot, dice=self._dice)
        try:
            with connection.transaction():
                kind(customer)
        except (psycopg.Error, UnexpectedRows) as error:
            self.note(kind.__name__, error, period)
            return
        self._record.add(period, self._clock.monotonic() - start)
        if customer.registered is not None:
            bot.customers.append(customer.registered)


class _Star(_Client):
    """Keeps ``SELECT *`` prepared, as applications do that name no columns."""

    invalidations = 0

    def serve(self, connection: psycopg.Connection) -> None:
        connection.prepare_threshold = None
        self._prepare(connection)
        while not self._signal.is_stopping and not connection.closed:
            try:
                connection.execute("EXECUTE star (1)")
            except psycopg.errors.FeatureNotSupported:
                self.invalidations += 1
                connection.execute("DEALLOCATE star")
                self._prepare(connection)
            except psycopg.Error as error:
                self.note("SELECT *", error)
            self.pause()

    @staticmethod
    def _prepare(connection: psycopg.Connection) -> None:
        connection.execute("PREPARE star (integer) AS SELECT * FROM users WHERE id = $1")


class Traffic:
    """The application, on ``connections`` connections and one for ``SELECT *``; starts in the old release.

    A context manager: inside it the traffic runs.  ``seed`` draws what is done, not when.
    """

    def __init__(
        self, dsn: str, *, connections: int = 4, seed: int = 1, per_second: float = _TRANSACTIONS_PER_S
    ) -> None:
        self.record = Record()
        self._dsn = dsn
        self._signal = Signal()
        self._newcomers = itertools.count(NEW_CUSTOMERS_FROM)
        every_s = connections / per_second
        self._workers = [
            _Worker(
                dsn, self.record, self._signal, name=f"shop {n}", every_s=every_s, dice=Random(f"{seed} {n}")
            )
            for n in range(connections)
        ]
        self._star = _Star(
            dsn, self.record, self._signal, name="shop *", every_s=_STAR_EVERY_S, dice=Random(seed)
        )

    @property
    def plan_invalidations(self) -> int:
        """How often the prepared ``SELECT *`` was refused and had to be prepared again."""
        return self._star.invalidations

    def start(self) -> None:
        """Begin in the old release."""
        self._give([self._read_bot(None)])
        for client in (*self._workers, self._star):
            client.start()

    def stop(self) -> None:
        """Let every transaction end, then close all connections."""
        self._signal.stop("the traffic has ended")
        for client in (*self._workers, self._star):
            if client.ident is not None:
                client.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def switch_to_new_release(self, bot_id: int) -> None:
        """From now on every statement reads and writes within the bot; returns when no old transaction is
        left.
        """
        self._give([self._read_bot(bot_id)])
        self._await_switch()

    def start_tenant(self, bot_id: int) -> None:
        """A second bot works beside the first; customers of the first register there
        with their telegram ids.
        """
        (first,) = self._workers[0].bots
        tenant = self._read_bot(bot_id)
        known = set(tenant.customers)
        tenant.guests.extend(telegram_id for telegram_id in first.customers if telegram_id not in known)
        self._give([first, tenant])
        self._await_switch()

    def _read_bot(self, bot_id: int | None) -> Bot:
        with psycopg.connect(self._dsn, application_name=_APPLICATION, autocommit=True) as connection:
            return Bot.read(connection, bot_id, self._newcomers)

    def _give(self, bots: Iterable[Bot]) -> None:
        given = tuple(bots)
        for worker in self._workers:
            worker.bots = given

    def _await_switch(self) -> None:
        clock, waited = SystemClock(), 0.0
        while any(worker.seen is not worker.bots for worker in self._workers):
            if clock.wait(0.01, self._signal):
                return
            waited += 0.01
            if waited > _SWITCH_WITHIN_S:
                raise TimeoutError(
                    f"a transaction of the application has not ended within {_SWITCH_WITHIN_S:.0f} s"
                )
