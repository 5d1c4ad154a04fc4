"""online-migrate stop."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import (
    CLOCK,
    connector_of,
    dsn_option,
    plan_argument,
    read_plan,
    reporting_standby,
)
from online_migrate.cli.output import say
from online_migrate.clock import Signal
from online_migrate.errors import UsageError
from online_migrate.journal.lease import read_holder, read_sessions, whoami
from online_migrate.journal.requests import request_stop
from online_migrate.journal.schema import ensure_readable
from online_migrate.journal.states import RequestKind

WAIT_S = 30.0


@click.command("stop")
@plan_argument
@dsn_option
def stop_command(plan: Path, dsn: str) -> None:
    """Ask the runner of PLAN to stop after its current batch or statement, from any host.

    Finished work is kept; the same `run` command resumes.

    \b
    Example:
      online-migrate stop plans/multi_tenant.yaml
    """
    end_run(plan, dsn, RequestKind.STOP, whoami(), "stop after its current batch or statement")


def end_run(plan: Path, dsn: str, kind: RequestKind, by: str, what: str) -> None:
    """Ask the runner of the plan to end, and wait for it; ``what`` it is asked to do."""
    read = read_plan(plan)
    with connector_of(read, dsn).open("stop") as connection:
        holder = read_holder(connection) if ensure_readable(connection) else None
        if holder is None or holder.plan != read.name or not read_sessions(connection):
            raise UsageError(
                f"no runner of plan {read.name} is running in database {connection.info.dbname}"
                f" on {connection.info.host}",
                remedy=f"show its progress: online-migrate status {plan}",
            )
        with reporting_standby(read, dsn, connection):
            request_stop(connection, plan=read.name, requested_by=by, kind=kind)
        say(f"asked {holder.runner} to {what}")
        deadline = CLOCK.monotonic() + WAIT_S
        while read_sessions(connection) and CLOCK.monotonic() < deadline:
            CLOCK.wait(0.2, Signal())
        if read_sessions(connection):
            say(
                f"the runner is still at work after {WAIT_S:.0f} s; it ends after its statement"
                f"\nnext: online-migrate status {plan}"
            )
        else:
            say(f"stopped\nnext: online-migrate run {plan}")
