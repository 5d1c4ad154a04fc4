"""online-migrate verify."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import connector_of, dsn_option, echo_findings, plan_argument, read_plan
from online_migrate.engine.verify import verify
from online_migrate.errors import VerificationFailed


@click.command("verify")
@plan_argument
@dsn_option
def verify_command(plan: Path, dsn: str) -> None:
    """Read the database again and compare it with what PLAN's finished steps promise.  Scans rows; reads only."""
    read = read_plan(plan)
    with connector_of(read, dsn).open("verify", may_be_standby=True) as connection:
        result = verify(read, connection)
    echo_findings(result.findings)
    click.echo(
        f"{result.verified} steps verified, {result.open} not done yet, {len(result.findings)} not as promised"
    )
    if result.findings:
        raise VerificationFailed(
            "the database is not what the plan's finished steps promise", remedy="see each finding"
        )
