"""online-migrate demo."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import psycopg
from rich.console import Console

from online_migrate.cli.common import CLOCK, read_plan
from online_migrate.clock import Signal
from online_migrate.demo.report import Report
from online_migrate.demo.show import DemoOptions, find_plan, run_demo
from online_migrate.errors import OnlineMigrateError, VerificationFailed
from online_migrate.observe.page.serve import StatusPage
from online_migrate.observe.prometheus.relay import MetricsRelay
from online_migrate.observe.session import Session
from online_migrate.observe.snapshot.read import read_snapshot
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.observe.terminal.live_view import LiveView
from online_migrate.observe.watch import SnapshotWatch
from online_migrate.observe.web import WebServer
from online_migrate.postgres.connection import Connection, Connector


@click.command("demo")
@click.option(
    "--users",
    type=click.IntRange(20),
    default=20_000,
    show_default=True,
    help="Size of the shop; 20,000 users make about 400,000 rows.",
)
@click.option(
    "--interrupt", is_flag=True, help="Kill the runner with SIGKILL once in every stage, then resume it."
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the random shop, traffic and kills."
)
@click.option("--plan", type=click.Path(path_type=Path), help="A plan other than plans/multi_tenant.yaml.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    default=Path("demo-report.json"),
    show_default=True,
    help="The JSON report to write.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Serve the status page and /metrics on this port; 0, the default, takes a free one.",
)
@click.option(
    "--serve",
    is_flag=True,
    help="Keep the page, the metrics and the database running afterwards, until Ctrl-C.",
)
def demo_command(
    users: int,
    interrupt: bool,
    seed: int,
    plan: Path | None,
    report: Path,
    metrics_port: int,
    serve: bool,
) -> None:
    """Show a whole migration on a throwaway PostgreSQL: a shop becomes multi-tenant while its application
    runs.

    Needs no server: one is started on 127.0.0.1 and removed at the end.

    \b
    Example:
      online-migrate demo --users 5000 --interrupt --seed 7
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as by Ctrl-C: the server is removed
    path = find_plan(plan)
    name = read_plan(path).name
    page, relay = StatusPage(name), MetricsRelay(name)
    server = WebServer({**page.routes, "/metrics": relay.answer}, port=metrics_port)
    screen = _Screen(Console(), [page.update, relay.update])
    screen.say_where(server.start())
    try:
        result = run_demo(
            DemoOptions(users=users, interrupt=interrupt, seed=seed, plan=path),
            out=report,
            on_tick=screen.tick,
            say=screen.say,
            on_metrics=relay.follow,
            on_report=lambda made: screen.show(made, report),
            inspect=screen.serve if serve else lambda _: None,
        )
    finally:
        screen.close()
        server.stop()
    if not result.ok:
        raise VerificationFailed("the demo failed", remedy=f"read `failures` and `checks` in {report}")


class _Screen:
    """A live table while a runner runs, sentences in between; the page shows the same."""

    def __init__(self, console: Console, listeners: Sequence[Callable[[Snapshot], None]]) -> None:
        self._console = console
        self._listeners = listeners
        self._url = ""
        self._plan = ""
        self._view: LiveView | None = None
        self._connection: Connection | None = None

    def say(self, sentence: str) -> None:
        self.close()
        self._console.print(f"[bold]{sentence}[/bold]", highlight=False)

    def say_where(self, url: str) -> None:
        self._url = url
        self._console.print(f"Status page  {url}/", highlight=False)
        self._console.print(f"Metrics      {url}/metrics", highlight=False)

    def show(self, report: Report, path: Path) -> None:
        self.close()
        for line in report.lines():
            click.echo(line)
        click.echo(f"report: {path}")

    def serve(self, dsn: str) -> None:
        """Keep the server until Ctrl-C; the page reads its journal."""
        click.echo(f'Serving until Ctrl-C: {self._url}/, {self._url}/metrics, psql "{dsn}"')
        session = Session(Connector(dsn=dsn, application="online-migrate demo"))
        watch = SnapshotWatch(session, self._plan, self._listeners)
        watch.start()
        try:
            while not CLOCK.wait(3_600, Signal()):
                pass
        except KeyboardInterrupt:
            click.echo()
        finally:
            watch.close()
            session.close()

    def tick(self, dsn: str, plan: str) -> None:
        self._plan = plan
        try:
            if self._connection is None or self._connection.closed:
                self._connection = Connector(dsn=dsn, application="online-migrate demo").open("screen")
            snapshot = read_snapshot(self._connection, plan)
        except (psycopg.Error, OnlineMigrateError):
            return
        if snapshot is not None:
            for listener in self._listeners:
                listener(snapshot)
            self._view = self._view or LiveView(self._console)
            self._view.update(snapshot)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
