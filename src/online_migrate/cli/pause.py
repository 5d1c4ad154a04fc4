"""online-migrate pause."""

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
    limit_of,
    plan_argument,
    read_plan,
    reporting_standby,
    run_of,
    until_options,
)
from online_migrate.cli.output import say
from online_migrate.errors import UsageError
from online_migrate.journal.requests import Pause, read_pause, request_pause
from online_migrate.journal.states import RunState
from online_migrate.journal.steering import pause_text
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection


@click.command("pause")
@plan_argument
@dsn_option
@by_option("Who pauses")
@until_options("The pause ends by itself")
def pause_command(plan: Path, dsn: str, by: str, until: float | None, for_s: float | None) -> None:
    """Hold the run of PLAN between two batches or statements, from any host, until `resume`.

    While it is paused no transaction is open and no lock is held; the runner keeps its lease.  The pause is
    in the journal: it outlives the runner, and the next `run` starts paused.

    \b
    Example:
      online-migrate pause plans/multi_tenant.yaml
      online-migrate pause plans/multi_tenant.yaml --until 06:00
    """
    read, limit_s = read_plan(plan), limit_of(until, for_s)
    with connector_of(read, dsn).open("pause") as connection:
        if run_of(read, connection).state is RunState.DONE:
            raise UsageError(f"plan {read.name} is done", remedy="there is nothing to pause")
        before = _in_force(connection, read)
        if before is not None and limit_s is None:
            raise UsageError(
                f"plan {read.name} is already {pause_text(before, str(plan))}",
                remedy="to change when the pause ends, pause it again with --until or --for",
            )
        with reporting_standby(read, dsn, connection):
            request_pause(connection, plan=read.name, by=by, for_s=limit_s)
        say(_outcome(read, connection))


def _in_force(connection: Connection, plan: Plan) -> Pause | None:
    pause = read_pause(connection, plan=plan.name)
    return pause if pause is not None and pause.is_in_force else None


def _outcome(plan: Plan, connection: Connection) -> str:
    """What has become of the request."""
    path = plan.path

    def is_paused() -> bool:
        pause = _in_force(connection, plan)
        return pause is None or pause.taken_at is not None

    was_at_work = is_at_work(plan, connection)
    if was_at_work and await_taken(connection, is_paused, plan):
        what = "paused: no transaction is open, no lock is held"
    elif is_at_work(plan, connection):
        what = (
            f"its statement still runs after {TAKEN_WITHIN_S:.0f} s; the run pauses when that ends:"
            f" online-migrate status {path}"
        )
    else:
        what = f"no runner of plan {plan.name} is running; the next run starts paused"
    pause = _in_force(connection, plan)
    until = "" if pause is None or pause.until is None else f"\nuntil {pause.until:%Y-%m-%d %H:%M:%S %Z}"
    return f"{what}{until}\nnext: online-migrate resume {path}"
