"""online-migrate dismiss."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import (
    TAKEN_WITHIN_S,
    await_taken,
    by_option,
    connector_of,
    dsn_option,
    is_at_work,
    plan_argument,
    read_plan,
    reporting_standby,
    run_of,
)
from online_migrate.cli.output import say
from online_migrate.errors import UsageError
from online_migrate.journal.requests import are_dismissals_taken, request_dismissal
from online_migrate.observe.snapshot.read import read_snapshot
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection


@click.command("dismiss")
@plan_argument
@click.argument("standby")
@dsn_option
@by_option("Who dismisses")
def dismiss_command(plan: Path, standby: str, dsn: str, by: str) -> None:
    """Let the run of PLAN continue without STANDBY, which has disconnected and will not come back.

    STANDBY is its name as `status` shows it: its slot, or its application_name.  A standby that connects
    again counts again.

    \b
    Example:
      online-migrate dismiss plans/multi_tenant.yaml replica_1
    """
    read = read_plan(plan)
    with connector_of(read, dsn).open("dismiss") as connection:
        run_of(read, connection)
        _ensure_awaited(read, standby, connection)
        with reporting_standby(read, dsn, connection):
            request_dismissal(connection, plan=read.name, standby=standby, by=by)
        if await_taken(connection, lambda: are_dismissals_taken(connection, plan=read.name), read):
            said = f"dismissed by {by}: standby {standby}"
        else:
            said = f"the runner has not answered within {TAKEN_WITHIN_S:.0f} s"
        say(f"{said}\nnext: online-migrate status {plan}")


def _ensure_awaited(plan: Plan, standby: str, connection: Connection) -> None:
    """Raise :class:`UsageError` unless a runner waits for that standby: the name may be misspelt."""
    if not is_at_work(plan, connection):
        raise UsageError(
            f"no runner of plan {plan.name} is running, and a new one waits for no lost standby",
            remedy=f"online-migrate run {plan.path}",
        )
    snapshot = read_snapshot(connection, plan.name)
    waits = () if snapshot is None else snapshot.waits
    reasons = [w.reason for w in waits if "disconnected" in w.reason]
    if not any(standby in reason for reason in reasons):
        said = f"; it waits: {reasons[0]}" if reasons else ""
        raise UsageError(
            f"the run waits for no standby {standby}{said}",
            remedy=f"see its name: online-migrate status {plan.path}",
        )
