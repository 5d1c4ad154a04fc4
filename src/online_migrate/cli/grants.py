"""online-migrate grants."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import connector_of, dsn_option, has_database, plan_argument, read_plan
from online_migrate.cli.output import say
from online_migrate.engine.grants import grant_lines, grant_lines_without_database
from online_migrate.engine.survey import survey


@click.command("grants")
@plan_argument
@dsn_option
@click.option(
    "--role",
    metavar="NAME",
    default="online_migrate",
    show_default=True,
    help="The role that runs PLAN.",
)
def grants_command(plan: Path, dsn: str, role: str) -> None:
    """Print the SQL script that makes the role that PLAN needs, and no more.  Changes nothing.

    `check` reports each of these rights that is missing.  Without a database it prints what the plan alone
    says, and names what it cannot know.

    \b
    Example:
      online-migrate grants plans/multi_tenant.yaml --role migrator > role.sql
    """
    read = read_plan(plan)
    if not has_database(dsn):
        lines = list(grant_lines_without_database(read, role))
    else:
        with connector_of(read, dsn).open("grants", may_be_standby=True) as connection:
            lines = list(grant_lines(survey(read, connection), role))
    for line in lines:
        say(line)
