"""online-migrate redo."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import CLOCK, connector_of, dsn_option, plan_argument, read_plan, say_standby
from online_migrate.cli.plan_names import complete_stage, complete_step, complete_table
from online_migrate.engine.redo import Wanted, redo
from online_migrate.journal.lease import whoami


@click.command("redo")
@plan_argument
@click.argument("step", shell_complete=complete_step)
@dsn_option
@click.option("--stage", metavar="STAGE", shell_complete=complete_stage, help="Only in this stage.")
@click.option("--table", metavar="TABLE", shell_complete=complete_table, help="Only on this table.")
@click.option(
    "--by", default=whoami, help="Who asks; by default you, on this host.", show_default="user@host"
)
@click.option("--note", default="", help="Why; kept in the journal.")
def redo_command(
    plan: Path, step: str, dsn: str, stage: str | None, table: str | None, by: str, note: str
) -> None:
    """Reopen the finished STEP, whose object was changed or dropped; then `run` repeats it.

    STEP is its title, such as "create_index users_bot_id", or the name of its operation.  Nothing but the
    journal is changed, and only while no runner works.

    \b
    Example:
      online-migrate redo plans/multi_tenant.yaml "create_index idx_users_bot" --table users
    """
    wanted = Wanted(step=step, stage=stage, table=table)
    read = read_plan(plan)
    for reopened in redo(
        read, connector_of(read, dsn), wanted, by=by, note=note, clock=CLOCK, emit=say_standby
    ):
        click.echo(f"reopened: {reopened}")
    click.echo(f"next: online-migrate run {plan}")
