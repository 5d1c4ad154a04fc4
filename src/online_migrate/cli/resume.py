"""online-migrate resume."""

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
from online_migrate.journal.requests import read_pause, request_resume


@click.command("resume")
@plan_argument
@dsn_option
@by_option("Who resumes")
def resume_command(plan: Path, dsn: str, by: str) -> None:
    """End the pause of PLAN, from any host.

    A runner that waits continues within a second or two; without a runner, the next `run` works at once.

    \b
    Example:
      online-migrate resume plans/multi_tenant.yaml
    """
    read = read_plan(plan)
    with connector_of(read, dsn).open("resume") as connection:
        run_of(read, connection)
        pause = read_pause(connection, plan=read.name)
        if pause is None or not pause.is_in_force:
            command = "status" if is_at_work(read, connection) else "run"
            raise UsageError(f"plan {read.name} is not paused", remedy=f"online-migrate {command} {plan}")
        with reporting_standby(read, dsn, connection):
            request_resume(connection, plan=read.name, by=by)

        def is_taken() -> bool:
            newest = read_pause(connection, plan=read.name)
            return newest is not None and newest.taken_at is not None

        if not is_at_work(read, connection):
            say(f"resumed by {by}; no runner is running\nnext: online-migrate run {plan}")
        elif await_taken(connection, is_taken, read):
            say(f"resumed by {by}\nnext: online-migrate status {plan}")
        else:
            slow = f"the runner has not answered within {TAKEN_WITHIN_S:.0f} s"
            say(f"{slow}\nnext: online-migrate status {plan}")
