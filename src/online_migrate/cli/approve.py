"""online-migrate approve."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import connector_of, dsn_option, plan_argument, read_plan
from online_migrate.errors import UsageError
from online_migrate.journal.lease import whoami
from online_migrate.journal.store import Journal, approve, ensure_readable


@click.command("approve")
@plan_argument
@click.argument("stage")
@dsn_option
@click.option("--by", default=whoami, help="Who approves; by default you, here.", show_default="user@host")
@click.option("--note", default="", help="What was seen, for the journal.")
def approve_command(plan: Path, stage: str, dsn: str, by: str, note: str) -> None:
    r"""Confirm what STAGE's gate asks; the next `run` passes it.

    \b
    online-migrate approve plans/multi_tenant.yaml swap --note "release 2.4 is live everywhere"
    """
    read = read_plan(plan)
    found = read.stage(stage)
    if found is None:
        raise UsageError(
            f"the plan has no stage {stage}", remedy=f"its stages: {', '.join(s.name for s in read.stages)}"
        )
    if found.gate is None:
        raise UsageError(f"stage {stage} has no gate", remedy="nothing needs to be approved for it")
    with connector_of(read, dsn).open("approve") as connection:
        if not ensure_readable(connection) or Journal(connection).read_run(read.name) is None:
            raise UsageError(
                f"there is no run of plan {read.name} in this database",
                remedy=f"begin one: online-migrate run {plan}",
            )
        approve(connection, plan=read.name, stage=stage, approved_by=by, note=note)
    click.echo(f"approved by {by}: {found.gate.approval}\nnext: online-migrate run {plan}")
