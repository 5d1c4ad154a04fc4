"""online-migrate history."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from online_migrate.cli.common import dsn_option
from online_migrate.cli.explain import HOW
from online_migrate.cli.output import say
from online_migrate.cli.runs import run_line, run_to_json
from online_migrate.figures import seconds_text
from online_migrate.journal.records import ApprovalRecord, HistoryRecord, StepRecord
from online_migrate.journal.schema import ensure_readable
from online_migrate.observe.past import AT, PastRun, read_past
from online_migrate.observe.words import place_text
from online_migrate.operations.contract.base import Kind
from online_migrate.postgres.connection import Connector


@click.command("history")
@dsn_option
@click.option("--plan", metavar="NAME", help="Only runs of the plan of this name.")
@click.option(
    "--sql",
    "as_sql",
    is_flag=True,
    help="The statements as executed, as a script; each batch of a backfill is part of one statement here.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: a list, oldest run first.")
def history_command(dsn: str, plan: str | None, as_sql: bool, as_json: bool) -> None:
    """Show what was done in the database: runs and who started them, steps, statements with their times,
    approvals, interruptions.

    Secrets are bind parameters: no statement contains one.  Times are the server's, in UTC.

    \b
    Example:
      online-migrate history
      online-migrate history --plan multi_tenant --sql > executed.sql
      online-migrate history --json
    """
    if as_sql and as_json:
        raise click.UsageError("--sql and --json exclude each other")
    with Connector(dsn=dsn, schema="public").open("history", may_be_standby=True) as connection:
        runs = read_past(connection, plan) if ensure_readable(connection) else ()
        where = f"database {connection.info.dbname} on {connection.info.host}"
    if as_json:
        click.echo(json.dumps([_to_json(run) for run in runs], indent=2, ensure_ascii=False))
        return
    lines = [line for run in runs for line in (_sql_lines(run) if as_sql else _lines(run))]
    if not runs:
        none = f"plan {plan} has not run in {where}" if plan else f"no plan has run in {where}"
        lines = [f"{'-- ' * as_sql}{none}"]
    if as_sql and not sys.stdout.isatty():
        click.echo("\n".join(lines))  # for a program: to the letter
        return
    for line in lines:
        say(line)


def _lines(run: PastRun) -> Iterator[str]:
    yield run_line(run.summary)
    for entry in run.entries():
        place = f"{entry.place}: " if entry.place else ""
        yield f"  {entry.at:{AT}}  {place}{entry.text}"


def _sql_lines(run: PastRun) -> Iterator[str]:
    """Each window is a transaction; a step without a statement of ours says why."""
    yield from (f"-- {line}" for line in run_line(run.summary).splitlines())
    for record in run.statements():
        kind, statements = Kind(str(record.fields["kind"])), _texts(record)
        yield ""
        yield _comment(record.at, record.stage, record.step, record.table, f"{HOW[kind]}; {_took(record)}")
        transaction = ("BEGIN;", "COMMIT;") if kind is Kind.WINDOW and len(statements) > 1 else ()
        yield from transaction[:1]
        yield from (f"{text}\n;" if _ends_in_comment(text) else f"{text};" for text in statements)
        yield from transaction[1:]
    executed = {(r.stage, r.step, r.table) for r in run.statements()}
    for step in run.steps:
        if step.key not in executed and step.started_at is not None:
            yield ""
            yield _comment(step.started_at, *step.key, _why_none(step))


def _comment(at: datetime, stage: str, step: str, table: str, text: str) -> str:
    """One line, whatever the names contain."""
    return " ".join(f"-- {at:{AT}}  {place_text(stage, step, table)}: {text}".split())


def _ends_in_comment(text: str) -> bool:
    return "--" in text.rpartition("\n")[2]


def _why_none(step: StepRecord) -> str:
    if step.state == "done":
        return "done; no statement of ours changed anything, or its runner was killed before it kept it"
    rows = f", {step.rows_done} rows so far" if step.rows_done else ""
    return f"{step.state}, not finished{rows}"


def _took(record: HistoryRecord) -> str:
    seconds = record.fields.get("seconds")
    return f"took {seconds_text(seconds if isinstance(seconds, int | float) else None)}"


def _texts(record: HistoryRecord) -> list[str]:
    statements = record.fields.get("statements")
    return [str(text) for text in statements] if isinstance(statements, list) else []


def _to_json(run: PastRun) -> dict[str, Any]:
    return {
        **run_to_json(run.summary),
        "steps": [_step_json(step, run) for step in run.steps],
        "approvals": [_approval_json(approval) for approval in run.approvals],
        "events": [{"at": e.at.isoformat(), "place": e.place, "text": e.text} for e in run.entries()],
    }


def _step_json(step: StepRecord, run: PastRun) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "step": step.step,
        "table": step.table or None,
        "state": step.state,
        "reason": step.reason,
        "started_at": _iso(step.started_at),
        "ended_at": _iso(step.ended_at),
        "rows_done": step.rows_done,
        "statements": [
            {
                "at": record.at.isoformat(),
                "kind": record.fields.get("kind"),
                "seconds": record.fields.get("seconds"),
                "sql": _texts(record),
            }
            for record in run.statements()
            if (record.stage, record.step, record.table) == step.key
        ],
    }


def _approval_json(approval: ApprovalRecord) -> dict[str, Any]:
    return {
        "stage": approval.stage,
        "approved_by": approval.approved_by,
        "account": approval.account,
        "note": approval.note,
        "approved_at": approval.approved_at.isoformat(),
        "expires_at": _iso(approval.expires_at),
        "revoked_at": _iso(approval.revoked_at),
        "revoked_by": approval.revoked_by,
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
