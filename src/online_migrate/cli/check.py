"""online-migrate check."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from online_migrate.cli.common import connector_of, dsn_option, echo_findings, plan_argument, read_plan
from online_migrate.cli.output import say
from online_migrate.engine.check.plan import check, is_stopping
from online_migrate.engine.survey import survey
from online_migrate.errors import PreflightFailed
from online_migrate.findings import Finding, Severity
from online_migrate.plan.secrets import Secrets


@click.command("check")
@plan_argument
@dsn_option
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check_command(plan: Path, dsn: str, format_: str) -> None:
    """List what is wrong, risky or open about PLAN on this database.  Reads only.

    \b
    stop  `run` refuses to start          ask   a question that only you can answer
    warn  `run` starts; read this first   info  good to know

    \b
    Example:
      online-migrate check plans/multi_tenant.yaml
      online-migrate check plans/multi_tenant.yaml --format json
    """
    read = read_plan(plan)
    connector = connector_of(read, dsn)
    with connector.open("check") as connection:
        seen = survey(read, connection)
        findings = check(seen, missing_secrets=Secrets(read.secrets, os.environ).missing())
    if format_ == "json":
        click.echo(json.dumps([_json(f) for f in findings], indent=2))
    else:
        echo_findings(findings)
        counts = {s: sum(f.severity is s for f in findings) for s in Severity}
        say(
            f"{len(seen.steps)} steps on {connector.where}; "
            + ", ".join(f"{n} {s.value}" for s, n in counts.items())
        )
    if is_stopping(findings):
        raise PreflightFailed(
            "`run` would refuse to start", remedy="fix the findings marked `stop`, then run `check` again"
        )


def _json(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity.value,
        "code": finding.code,
        "fact": finding.fact,
        "remedy": finding.remedy,
        "step": finding.step,
        "table": finding.table,
        "manual": finding.manual,
    }
