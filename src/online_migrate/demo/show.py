"""The demo: a filled single-tenant shop becomes multi-tenant on a real server while its application runs."""

from __future__ import annotations

import secrets
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from online_migrate.clock import Signal, SystemClock
from online_migrate.demo.checks import Check, check_owner, final_checks
from online_migrate.demo.operate import Kill, Operator, carry_out, draw_kills
from online_migrate.demo.report import LOCK_EVENTS, Locks, Report, Sizes
from online_migrate.demo.shop import SHOP_TABLES, create_shop
from online_migrate.demo.tenant import create_tenant
from online_migrate.demo.traffic import Traffic
from online_migrate.errors import UsageError
from online_migrate.journal.store import Journal
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.expand import expand, listed_tables
from online_migrate.plan.load import load_file
from online_migrate.plan.model import Plan
from online_migrate.postgres.server import start_server

Connection = psycopg.Connection[tuple[Any, ...]]

PERIODS: Final = ("before", "during", "after")
"""of the traffic: alone, during the migration, and with a second tenant"""

_PLAN: Final = Path("plans", "multi_tenant.yaml")
_DATABASE: Final = "shop"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Options of the demo; the defaults are those of ``online-migrate demo``."""

    users: int = 20_000
    interrupt: bool = False
    """kill the runner once in every stage, and resume it"""
    seed: int = 1
    """seed of the shop, of what the traffic does, and of where the runner is killed"""
    plan: Path | None = None
    before_s: float = 10.0
    """how long the application runs alone first"""
    after_s: float = 5.0
    """how long the application runs with two tenants at the end"""


def find_plan(given: Path | None) -> Path:
    """``given``, else the program's own plan: in the current directory, in its wheel, or in its checkout.

    Raises :class:`~online_migrate.errors.UsageError` if there is no such file.
    """
    here = Path(__file__).parent
    candidates = [given] if given else [_PLAN, here / _PLAN, here.parents[2] / _PLAN]
    for path in candidates:
        if path.is_file():
            return path.absolute()
    raise UsageError(
        f"no plan at {', '.join(map(str, candidates))}",
        remedy="name a plan: online-migrate demo --plan PATH",
    )


def run_demo(
    options: DemoOptions,
    *,
    out: Path | None = None,
    on_tick: Callable[[str, str], None] = lambda _dsn, _plan: None,
    say: Callable[[str], None] = lambda _sentence: None,
    on_metrics: Callable[[str], None] | None = None,
    on_report: Callable[[Report], None] = lambda _report: None,
    inspect: Callable[[str], None] = lambda _dsn: None,
) -> Report:
    """Run the demo on a throwaway server; returns the report, and writes it to ``out`` as JSON.

    ``on_tick(dsn, plan)`` is called twice a second while a runner runs, ``say`` before each part,
    ``on_metrics(url)`` for each runner that serves metrics, ``on_report`` and ``inspect(dsn)`` at the end,
    before the server is stopped. Raises :class:`~online_migrate.demo.operate.DemoFailed` if the plan does not
    complete; failed transactions and failed checks are in the report.
    """
    plan = load_file(find_plan(options.plan), OPERATIONS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="online-migrate-demo-")))
        say("Starting a throwaway PostgreSQL server")
        server = stack.enter_context(start_server())
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))
        dsn = server.dsn_for(_DATABASE)
        say(f'PostgreSQL {server.version}: psql "{dsn}"')
        say(f"Filling the shop for {options.users:,} users")
        create_shop(dsn, users=options.users, seed=options.seed)
        demo = _Demo(
            options=options,
            plan=plan,
            dsn=dsn,
            version=server.version,
            folder=folder,
            say=say,
            on_metrics=on_metrics,
        )
        report = demo.run(lambda: on_tick(dsn, plan.name))
        if out is not None:
            out.write_text(report.to_json(), encoding="utf-8")
        on_report(report)
        inspect(dsn)
    return report


@dataclass(slots=True, kw_only=True)
class _Demo:
    """From the filled shop to the report."""

    options: DemoOptions
    plan: Plan
    dsn: str
    version: str
    folder: Path
    """the runner's working directory: its log, and the generated token"""
    say: Callable[[str], None]
    on_metrics: Callable[[str], None] | None
    token: str = field(default_factory=lambda: f"{secrets.randbelow(10**10)}:{secrets.token_urlsafe(26)}")
    """the master bot's Telegram token; invented"""

    def run(self, on_tick: Callable[[], None]) -> Report:
        clock = SystemClock()
        kills = self._draw_kills()
        with (
            psycopg.connect(self.dsn, autocommit=True) as connection,
            Traffic(self.dsn, seed=self.options.seed) as traffic,
        ):
            self.say(f"The application runs alone for {self.options.before_s:.0f} s")
            self._let_work(
                traffic, "warm-up", self.options.before_s / 5
            )  # fills caches and plans; in no summary
            self._let_work(traffic, "before", self.options.before_s)
            traffic.record.mark("during")
            self.say(f"Running {self.plan.path.name} while the application runs")
            rows, before = _count_rows(connection), Sizes.read(connection, SHOP_TABLES)
            wal, start = _read_wal(connection), clock.monotonic()
            carry_out(
                self._operator(on_tick),
                kills=kills,
                at_gate=lambda stage: self._pass_gate(connection, traffic, stage),
            )
            seconds, wal = clock.monotonic() - start, _read_wal(connection) - wal
            after = Sizes.read(connection, SHOP_TABLES)
            checks = self._work_and_check(connection, traffic)
            return Report(
                plan=self.plan.name,
                server_version=self.version,
                users=self.options.users,
                rows=rows,
                seconds=seconds,
                stages=self._read_stages(connection),
                transactions={period: traffic.record.summary(period) for period in PERIODS},
                failures=tuple(map(str, traffic.record.failures)),
                plan_invalidations=traffic.plan_invalidations,
                locks=self._read_locks(connection),
                wal_bytes=wal,
                before=before,
                after=after,
                checks=checks,
                seed=self.options.seed,
                interrupted=kills,
            )

    def _draw_kills(self) -> tuple[Kill, ...]:
        if not self.options.interrupt:
            return ()
        steps = Counter(s.stage for s in expand(self.plan, listed_tables(self.plan), OPERATIONS))
        kills = draw_kills(steps, Random(self.options.seed))
        self.say(f"Seed {self.options.seed}: kills (stage:statements): {', '.join(map(str, kills))}")
        return kills

    def _operator(self, on_tick: Callable[[], None]) -> Operator:
        variables = [source.env for source in self.plan.secrets.values() if source.env is not None]
        return Operator(
            dsn=self.dsn,
            plan=self.plan.path,
            folder=self.folder,
            secrets=dict.fromkeys(variables, self.token),
            on_tick=on_tick,
            on_metrics=self.on_metrics,
        )

    def _let_work(self, traffic: Traffic, period: str, seconds: float) -> None:
        traffic.record.mark(period)
        SystemClock().wait(seconds, Signal())

    def _pass_gate(self, connection: Connection, traffic: Traffic, stage: str) -> None:
        self.say(f"At the gate of {stage}: switching the application to its new release, then approving")
        traffic.switch_to_new_release(_read_master(connection))

    def _work_and_check(self, connection: Connection, traffic: Traffic) -> tuple[Check, ...]:
        """Add a second tenant, let both work, stop the application, then check everything."""
        tables = self._read_tables(connection)
        owner = check_owner(connection, tables)
        tenant = create_tenant(connection)
        self.say(
            f"A second tenant with the same customers works beside the first for {self.options.after_s:.0f} s"
        )
        traffic.start_tenant(tenant)
        self._let_work(traffic, "after", self.options.after_s)
        traffic.stop()
        self.say("The application has stopped; checking the database")
        checks = final_checks(
            connection,
            tables=tables,
            tenant=tenant,
            failures=traffic.record.failures,
            secrets=(self.token,),
            handed_over=read_tokens(self.folder),
        )
        return (owner, *checks)

    def _read_tables(self, connection: Connection) -> tuple[str, ...]:
        sets = Journal(connection).read_tables(self._run_id(connection))
        return tuple(table for tables in sets.values() for table in tables)

    def _read_stages(self, connection: Connection) -> dict[str, int]:
        steps = Journal(connection).read_steps(self._run_id(connection))
        return dict(Counter(step.stage for step in steps if step.state == "done"))

    def _read_locks(self, connection: Connection) -> Locks:
        return Locks.of(Journal(connection).read_history(self._run_id(connection), LOCK_EVENTS))

    def _run_id(self, connection: Connection) -> int:
        run = Journal(connection).read_run(self.plan.name)
        assert run is not None  # the plan was run
        return run.run_id


def read_tokens(folder: Path) -> tuple[str, ...]:
    """The secrets that a runner without a terminal wrote below ``folder``."""
    return tuple(path.read_text(encoding="utf-8").strip() for path in sorted(folder.rglob("*.secret")))


def _read_wal(connection: Connection) -> int:
    """Bytes of WAL since the server was created."""
    return int(_one(connection, "SELECT pg_current_wal_insert_lsn() - '0/0'"))


def _read_master(connection: Connection) -> int:
    return int(_one(connection, "SELECT id FROM bots WHERE is_master"))


def _count_rows(connection: Connection) -> int:
    """Rows of all tables, as ANALYZE estimated them after the shop was filled."""
    return int(
        _one(
            connection,
            "SELECT sum(reltuples) FROM pg_class WHERE relkind = 'r' AND relnamespace ="
            " 'public'::regnamespace",
        )
    )


def _one(connection: Connection, query: LiteralString) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
