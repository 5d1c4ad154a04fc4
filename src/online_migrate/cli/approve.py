"""online-migrate approve."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import (
    by_option,
    connector_of,
    dsn_option,
    duration,
    plan_argument,
    read_plan,
    reporting_standby,
    run_of,
    stage_of,
)
from online_migrate.cli.output import say
from online_migrate.cli.plan_names import complete_gate
from online_migrate.errors import UsageError
from online_migrate.journal.records import RunRecord
from online_migrate.journal.requests import approve, revoke
from online_migrate.journal.store import Journal
from online_migrate.plan.model import Plan
from online_migrate.postgres.connection import Connection


@click.command("approve")
@plan_argument
@click.argument("stage", shell_complete=complete_gate)
@dsn_option
@by_option("Who approves", "  The account is kept beside it.")
@click.option("--note", default="", help="What was checked before; kept in the journal.")
@click.option(
    "--expires",
    metavar="TIME",
    callback=duration,
    help="The approval ends after this, such as 12h, unless the stage has begun.",
)
@click.option(
    "--revoke",
    "is_revoked",
    is_flag=True,
    help="Take the approvals of STAGE back; possible until the stage begins.",
)
def approve_command(
    plan: Path, stage: str, dsn: str, by: str, note: str, expires: float | None, is_revoked: bool
) -> None:
    """Open the gate of STAGE: confirm what it asks, then `run` continues.

    All approvals are kept, also revoked and expired ones: `status` and `report` show them.

    \b
    Example:
      online-migrate approve plans/multi_tenant.yaml swap --note "release 2.4 is live everywhere"
      online-migrate approve plans/multi_tenant.yaml swap --expires 12h
      online-migrate approve plans/multi_tenant.yaml swap --revoke --note "2.4 was rolled back"
    """
    read = read_plan(plan)
    found = stage_of(read, stage)
    if found.gate is None:
        raise UsageError(f"stage {stage} has no gate", remedy="it needs no approval; nothing to do")
    if is_revoked and expires is not None:
        raise UsageError("--expires and --revoke exclude each other", remedy="leave one of them out")
    with connector_of(read, dsn).open("approve") as connection:
        run = run_of(read, connection)
        if is_revoked:
            with reporting_standby(read, dsn, connection):
                _revoke(connection, run, read, stage, by=by, note=note)
            return
        if _has_begun(connection, run, stage):
            raise UsageError(
                f"stage {stage} has started: its gate was already passed",
                remedy=f"show its progress: online-migrate status {plan}",
            )
        with reporting_standby(read, dsn, connection):
            until = approve(
                connection, plan=read.name, stage=stage, approved_by=by, note=note, expires_s=expires
            )
    limit = "" if until is None else f"\nin force until {until:%Y-%m-%d %H:%M:%S %Z}"
    say(f"approved by {by}: {found.gate.approval}{limit}\nnext: online-migrate run {plan}")


def _has_begun(connection: Connection, run: RunRecord, stage: str) -> bool:
    stages = Journal(connection).read_stages(run.run_id)
    return any(s.stage == stage and s.started_at is not None for s in stages)


def _revoke(connection: Connection, run: RunRecord, plan: Plan, stage: str, *, by: str, note: str) -> None:
    revoked = revoke(connection, run_id=run.run_id, plan=plan.name, stage=stage, revoked_by=by, note=note)
    if revoked is None:
        raise UsageError(
            f"stage {stage} has started: its approval can no longer be revoked",
            remedy=f"stop the run after its current statement: online-migrate stop {plan.path}",
        )
    if not revoked:
        raise UsageError(
            f"no approval of stage {stage} is in force", remedy="its gate is closed; nothing to do"
        )
    say(
        f"revoked by {by}: the approval of stage {stage} by {', '.join(revoked)}; its gate is closed again"
        f"\nnext: online-migrate status {plan.path}"
    )
