"""online-migrate approve."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import connector_of, dsn_option, plan_argument, read_plan, stage_of
from online_migrate.cli.output import say
from online_migrate.errors import UsageError
from online_migrate.journal.lease import whoami
from online_migrate.journal.requests import approve
from online_migrate.journal.schema import ensure_readable
from online_migrate.journal.store import Journal


@click.command("approve")
@plan_argument
@click.argument("stage")
@dsn_option
@click.option(
    "--by", default=whoami, help="Who approves; by default you, on this host.", show_default="user@host"
)
@click.option("--note", default="", help="What was checked before; kept in the journal.")
def approve_command(plan: Path, stage: str, dsn: str, by: str, note: str) -> None:
    """Open the gate of STAGE: confirm what it asks, then `run` continues.

    \b
    Example:
      online-migrate approve plans/multi_tenant.yaml swap --note "release 2.4 is live everywhere"
    """
    read = read_plan(plan)
    found = stage_of(read, stage)
    if found.gate is None:
        raise UsageError(f"stage {stage} has no gate", remedy="it needs no approval; nothing to do")
    with connector_of(read, dsn).open("approve") as connection:
        journal = Journal(connection)
        run = journal.read_run(read.name) if ensure_readable(connection) else None
        if run is None:
            raise UsageError(
                f"there is no run of plan {read.name} in database {connection.info.dbname} on"
                f" {connection.info.host}",
                remedy=f"start one: online-migrate run {plan}",
            )
        if any(s.stage == stage and s.started_at is not None for s in journal.read_stages(run.run_id)):
            raise UsageError(
                f"stage {stage} has started: its gate was already passed",
                remedy=f"show its progress: online-migrate status {plan}",
            )
        approve(connection, plan=read.name, stage=stage, approved_by=by, note=note)
    say(f"approved by {by}: {found.gate.approval}\nnext: online-migrate run {plan}")
