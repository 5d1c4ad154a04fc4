"""online-migrate runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from online_migrate.cli.common import dsn_option
from online_migrate.cli.output import say
from online_migrate.journal.runs import RunSummary, read_runs
from online_migrate.journal.schema import ensure_readable
from online_migrate.postgres.connection import Connector


@click.command("runs")
@dsn_option
@click.option("--json", "as_json", is_flag=True, help="For programs: a list, oldest run first.")
def runs_command(dsn: str, as_json: bool) -> None:
    """List the runs of all plans in the database: state, stage, when, and who.

    \b
    Example:
      online-migrate runs
      online-migrate runs --json
    """
    with Connector(dsn=dsn, schema="public").open("runs", may_be_standby=True) as connection:
        runs = read_runs(connection) if ensure_readable(connection) else ()
        where = f"database {connection.info.dbname} on {connection.info.host}"
    if as_json:
        click.echo(json.dumps([run_to_json(run) for run in runs], indent=2, ensure_ascii=False))
        return
    for run in runs:
        say(run_line(run))
    if not runs:
        say(f"no plan has run in {where}")


def run_to_json(run: RunSummary) -> dict[str, Any]:
    """What ``--json`` prints of a run."""
    times = ("started_at", "resumed_at", "ended_at")
    given = asdict(run)
    return given | {name: None if given[name] is None else given[name].isoformat() for name in times}


def run_line(run: RunSummary) -> str:
    """A run in a line."""
    state = "no runner" if run.state == "running" and not run.is_live else run.state
    parts = [f"{run.plan} (run {run.run_id}): {state}"]
    parts += [f"stage {run.stage}"] if run.stage else []
    parts.append(f"started {run.started_at:%Y-%m-%d %H:%M:%S %Z}")
    parts += [f"ended {run.ended_at:%Y-%m-%d %H:%M:%S %Z}"] if run.ended_at else []
    parts += [f"last runner by {run.by}"] if run.by else []
    return ", ".join(parts)
