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
    """Read the database again and compare it with what PLAN's finished steps promise.

    Scans rows.  To compare definitions it makes tables in a schema of its own and rolls that back, which needs CREATE and
    TEMP on the database; nothing stays.
    """
    read = read_plan(plan)
    with connector_of(read, dsn).open("verify", may_be_standby=True) as connection:
        result = verify(read, connection)
    echo_findings(result.findings)
    click.echo(
        f"{result.verified} finished steps looked at: {result.verified - result.broken} as promised, {result.broken} not;"
        f" {result.open} steps not done yet"
    )
    if result.findings:
        raise VerificationFailed(
            "the database is not what the plan's finished steps promise",
            remedy="mend it by hand, as each finding says (explain has the steps' SQL): run does not do a finished step again",
        )
