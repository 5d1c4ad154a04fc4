"""online-migrate report."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import connector_of, dsn_option, plan_argument, read_plan
from online_migrate.cli.output import say
from online_migrate.errors import UsageError
from online_migrate.observe.page.files import one_file
from online_migrate.observe.page.report import read_report


@click.command("report")
@plan_argument
@dsn_option
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="The file to write; - is standard output.  [default: <plan name>-report.html]",
)
def report_command(plan: Path, dsn: str, output: Path | None) -> None:
    """Write the run of PLAN as one HTML file that can be sent, kept and read offline.

    Reads the journal only, during a run or after it: stages and holds over time, throughput, locks, growth,
    approvals, findings, verification.

    \b
    Example:
      online-migrate report plans/multi_tenant.yaml -o night.html
    """
    read = read_plan(plan)
    with connector_of(read, dsn).open("report", may_be_standby=True) as connection:
        document = read_report(connection, read.name)
        if document is None:
            raise UsageError(
                f"there is no run of plan {read.name} in database {connection.info.dbname}",
                remedy=f"start one: online-migrate run {read.path}",
            )
    text = one_file(document)
    path = output or Path(f"{read.name}-report.html")
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write the report to {path}: {error.strerror}", remedy="name another file: -o FILE"
        ) from error
    say(f"report: {path}")
