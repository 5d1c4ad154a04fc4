"""online-migrate demo."""

from __future__ import annotations

from pathlib import Path

import click
import psycopg
from rich.console import Console

from online_migrate.demo.show import Wishes, run_demo
from online_migrate.errors import OnlineMigrateError, VerificationFailed
from online_migrate.observe.progress import LiveView
from online_migrate.observe.snapshot import read_snapshot
from online_migrate.postgres.connection import Connection, Connector


@click.command("demo")
@click.option(
    "--users",
    type=click.IntRange(20),
    default=20_000,
    show_default=True,
    help="Size of the shop; 20,000 users are some 400,000 rows.",
)
@click.option(
    "--interrupt", is_flag=True, help="Kill the runner with SIGKILL once in every stage, and resume it."
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Draws the shop, the traffic and the kills."
)
@click.option("--plan", type=click.Path(path_type=Path), help="Another plan than plans/multi_tenant.yaml.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    default=Path("demo-report.json"),
    show_default=True,
    help="Where the report goes.",
)
def demo_command(users: int, interrupt: bool, seed: int, plan: Path | None, report: Path) -> None:
    """Show the main job on a throwaway PostgreSQL: a filled shop becomes multi-tenant while its application works.

    Needs no server: one is started on 127.0.0.1 and removed at the end.

    \b
    online-migrate demo --users 5000 --interrupt --seed 7
    """
    console = Console()
    screen = _Screen(console)
    wishes = Wishes(users=users, interrupt=interrupt, seed=seed, plan=plan)
    try:
        result = run_demo(wishes, out=report, on_tick=screen.tick, say=screen.say)
    finally:
        screen.close()
    for line in result.lines():
        click.echo(line)
    click.echo(f"report: {report}")
    if not result.ok:
        raise VerificationFailed(
            "the demo is not as it should be", remedy=f"see failures and checks in {report}"
        )


class _Screen:
    """The live table while a runner works, sentences between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view: LiveView | None = None
        self._connection: Connection | None = None

    def say(self, sentence: str) -> None:
        self.close()
        self._console.print(f"[bold]{sentence}[/bold]", highlight=False)

    def tick(self, dsn: str, plan: str) -> None:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = Connector(dsn=dsn, application="online-migrate demo").open("screen")
            snapshot = read_snapshot(self._connection, plan)
        except (psycopg.Error, OnlineMigrateError):
            return
        if snapshot is not None:
            self._view = self._view or LiveView(self._console)
            self._view.update(snapshot)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
