"""online-migrate verify."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import connector_of, dsn_option, echo_findings, plan_argument, read_plan
from online_migrate.cli.output import say
from online_migrate.engine.verify import verify
from online_migrate.errors import VerificationFailed


@click.command("verify")
@plan_argument
@dsn_option
def verify_command(plan: Path, dsn: str) -> None:
    """Compare the database with what the finished steps of PLAN promise.

    Scans rows.  To compare definitions, it creates tables in its own schema and rolls back; that needs CREATE
    and TEMP on the database.

    \b
    Example:
      online-migrate verify plans/multi_tenant.yaml
    """
    read = read_plan(plan)
    with connector_of(read, dsn).open("verify", may_be_standby=True) as connection:
        result = verify(read, connection)
    echo_findings(result.findings)
    say(
        f"{result.verified} finished steps checked: {result.verified - result.broken} match, {result.broken}"
        f" differ{'s' * (result.broken == 1)}; {len(result.open)} steps are not done yet"
    )
    if result.findings:
        raise VerificationFailed(
            "the database differs from what finished steps of the plan promise",
            remedy="repair each step with the plan: `online-migrate redo PLAN STEP`, then `run`; or fix it"
            " yourself, as the finding says",
        )
    if result.is_run_done and result.open:
        steps = "\n".join(f"  - {step}" for step in result.open)
        raise VerificationFailed(
            f"the journal has the run as done, and these steps as not done:\n{steps}",
            remedy=f"do them: online-migrate run {plan}",
        )
