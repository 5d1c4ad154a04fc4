"""online-migrate status."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from online_migrate.cli.common import CLOCK, connector_of, dsn_option, plan_argument, read_plan
from online_migrate.clock import Signal
from online_migrate.errors import UsageError
from online_migrate.journal.store import ensure_readable
from online_migrate.observe.progress import LiveView, render
from online_migrate.observe.snapshot import read_snapshot, to_json
from online_migrate.observe.views import Snapshot
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection

WATCH_EVERY_S = 1.0


@click.command("status")
@plan_argument
@dsn_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="For machines: plan, state, whether a runner is at work, stages, steps.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Draw it anew every second until the plan is done; a stop in between is shown and waited through.",
)
def status_command(plan: Path, dsn: str, as_json: bool, watch: bool) -> None:
    """Say how far PLAN has come, and why it waits.  From the journal: works from any host, with or without a runner."""
    read = read_plan(plan)
    with connector_of(read, dsn).open("status", may_be_standby=True) as connection:
        if as_json:
            click.echo(json.dumps(to_json(_snapshot(read, connection)), indent=2))
        elif watch:
            _watch(read, connection)
        else:
            Console().print(render(_snapshot(read, connection)))


def _snapshot(plan: Plan, connection: Connection) -> Snapshot:
    snapshot = read_snapshot(connection, plan.name) if ensure_readable(connection) else None
    if snapshot is None:
        raise UsageError(
            f"there is no run of plan {plan.name} in database {connection.info.dbname} on {connection.info.host}",
            remedy=f"begin one: online-migrate run {plan.path}",
        )
    return snapshot


def _watch(plan: Plan, connection: Connection) -> None:
    view = LiveView(Console())
    signal = Signal()
    try:
        while True:
            snapshot = _snapshot(plan, connection)
            view.update(snapshot)
            if snapshot.state == "done" or CLOCK.wait(WATCH_EVERY_S, signal):
                return
    except KeyboardInterrupt:
        return
    finally:
        view.close()
