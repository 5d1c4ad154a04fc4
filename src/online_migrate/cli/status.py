"""online-migrate status."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from online_migrate.cli.common import CLOCK, connector_of, dsn_option, plan_argument, read_plan
from online_migrate.cli.output import say
from online_migrate.clock import Signal
from online_migrate.errors import (
    ConnectionFailed,
    LockNotAcquired,
    PreflightFailed,
    ResourcesExhausted,
    UsageError,
)
from online_migrate.journal.schema import ensure_readable
from online_migrate.journal.store import Journal
from online_migrate.observe.page.report import ALLOWED, find_approvals
from online_migrate.observe.snapshot.read import read_snapshot, to_json
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.observe.terminal.live_view import LiveView, render
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection

WATCH_EVERY_S = 1.0

_CAUSES: Final = {
    PreflightFailed.exit_code: "fix the cause; online-migrate check {plan} shows what else stops the run",
    LockNotAcquired.exit_code: "wait until the blocking sessions end, or end them",
    ConnectionFailed.exit_code: "see that the server can be reached",
    ResourcesExhausted.exit_code: "free the disk space, memory, connections or locks that the server lacks",
}
"""what to do after a run that failed, by its exit code"""


@click.command("status")
@plan_argument
@dsn_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="For programs: plan, state, stages, steps.  `state` is the journal's: after a runner was killed it"
    " is still"
    " `running`, and `is_live` is false.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Refresh every second until the plan completes; waits for the run to start, and while it is"
    " stopped.",
)
def status_command(plan: Path, dsn: str, as_json: bool, watch: bool) -> None:
    """Show the progress of PLAN, and what it waits for.

    Reads the journal in the database: works from any host, with or without a running runner.

    \b
    Example:
      online-migrate status plans/multi_tenant.yaml --watch
      online-migrate status plans/multi_tenant.yaml --json
    """
    read = read_plan(plan)
    with connector_of(read, dsn).open("status", may_be_standby=True) as connection:
        if as_json:
            click.echo(json.dumps(to_json(_snapshot(read, connection)), indent=2))
        elif watch:
            _watch(read, connection)
        else:
            snapshot = _snapshot(read, connection)
            Console().print(render(snapshot))
            for line in _allowed(snapshot, Journal(connection)):
                say(line)
            if what := _next(snapshot, read):
                say(f"next: {what}")


def _next(snapshot: Snapshot, plan: Plan) -> str:
    """What the operator does next, with the command; empty while a runner is at work."""
    run = f"online-migrate run {plan.path}"
    if snapshot.state == "running" and snapshot.is_live:
        return ""
    if snapshot.state == "done":
        return f"online-migrate verify {plan.path}"
    if snapshot.state == "failed":
        cause = _CAUSES.get(_exit_code(snapshot), "fix what the message above names")
        return f"{cause.format(plan=plan.path)}, then: {run}"
    approved = {a.stage for a in snapshot.approvals if a.is_in_force(snapshot.read_at)}
    closed = [s.stage for s in snapshot.stages if s.state == "waiting" and s.stage not in approved]
    if snapshot.state == "waiting" and closed:
        return f"when that is true: online-migrate approve {plan.path} {closed[0]}, then: {run}"
    return run


def _exit_code(snapshot: Snapshot) -> int:
    """With which the last runner ended; that of a runner that `check` refused has no history."""
    ended = [r for r in snapshot.history if r.event == "run_ended"]
    if not ended or (snapshot.ended_at is not None and ended[-1].at < snapshot.ended_at):
        return PreflightFailed.exit_code
    return int(str(ended[-1].fields["exit_code"]))


def _allowed(snapshot: Snapshot, journal: Journal) -> Iterator[str]:
    """What people allowed in this run: approvals, accepted changes of the plan, reopened steps."""
    history = journal.read_history(snapshot.run_id, ALLOWED)
    for one in find_approvals(snapshot.approvals, history, snapshot.read_at):
        at = datetime.fromisoformat(one["at"])
        what = one["note"] if not one["state"] else f"approved by {one['approved_by']}{_account(one)}"
        note = f" ({one['note']})" if one["state"] and one["note"] else ""
        state = f"; {one['state']}" if one["state"] else ""
        stage = f"stage {one['stage']} " if one["stage"] else ""
        yield f"{at:%Y-%m-%d %H:%M:%S %Z}  {stage}{what}{note}{state}"


def _account(one: Mapping[str, str]) -> str:
    return f", account {one['account']}" if one["account"] not in ("", one["approved_by"]) else ""


def _snapshot(plan: Plan, connection: Connection) -> Snapshot:
    snapshot = _read(plan, connection)
    if snapshot is None:
        raise UsageError(
            _no_run(plan, connection),
            remedy=f"start one: online-migrate run {plan.path}",
        )
    return snapshot


def _read(plan: Plan, connection: Connection) -> Snapshot | None:
    return read_snapshot(connection, plan.name) if ensure_readable(connection) else None


def _no_run(plan: Plan, connection: Connection) -> str:
    return (
        f"there is no run of plan {plan.name} in database {connection.info.dbname} on {connection.info.host}"
    )


def _watch(plan: Plan, connection: Connection) -> None:
    console, signal, is_reported = Console(), Signal(), False
    view = LiveView(console)
    try:
        while True:
            snapshot = _read(plan, connection)
            if snapshot is not None:
                view.update(snapshot)
            elif not is_reported:
                is_reported = True
                line = f"{_no_run(plan, connection)}; waiting for it to start"
                console.print(line, soft_wrap=True, markup=False, highlight=False)
            if (snapshot is not None and snapshot.state == "done") or CLOCK.wait(WATCH_EVERY_S, signal):
                return
    except KeyboardInterrupt:
        return
    finally:
        view.close()
