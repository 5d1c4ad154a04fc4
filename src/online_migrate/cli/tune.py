"""online-migrate tune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from online_migrate.cli.common import (
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
from online_migrate.journal.states import RunState
from online_migrate.journal.store import Journal
from online_migrate.journal.tuning import Tuning, read_tuning, request_tune
from online_migrate.plan.model import Pace, Phase, Plan

KEYS = ("batch_target", "duty", "min_rows", "max_rows", "max_wal")
"""of a pace, that can be changed while a run works"""


@click.command("tune")
@plan_argument
@dsn_option
@by_option("Who tunes")
@click.option("--table", metavar="TABLE", default="", help="Only this table; by default all.")
@click.option("--batch-target", metavar="TIME", help="How long a batch should take, such as 20ms.")
@click.option("--duty", metavar="SHARE", help="Share of the time in which batches run, such as 30%.")
@click.option("--min-rows", type=int, help="Lower bound of a batch's rows.")
@click.option("--max-rows", type=int, help="Upper bound of a batch's rows.")
@click.option("--max-wal", metavar="SIZE", help="Upper bound of a batch's WAL, such as 8MiB.")
@click.option("--reset", is_flag=True, help="The plan's pace again; with --table that of this table.")
def tune_command(plan: Path, dsn: str, by: str, table: str, reset: bool, **values: Any) -> None:
    """Change the pace of PLAN's backfills while they run, from any host; without options show it.

    The runner works at the new pace from its next batch on, after a second at most.  It is kept in the
    journal for the next runners, too, until the run is done; the plan's file remains as it is.

    \b
    Example:
      online-migrate tune plans/multi_tenant.yaml --duty 20% --batch-target 20ms
      online-migrate tune plans/multi_tenant.yaml --table transactions --max-rows 1000
      online-migrate tune plans/multi_tenant.yaml --reset
    """
    read = read_plan(plan)
    changes = {key: values[key] for key in KEYS if values[key] is not None}
    if reset and changes:
        raise UsageError("--reset takes no new values", remedy="reset first, then tune again")
    with connector_of(read, dsn).open("tune") as connection:
        run = run_of(read, connection)
        before = read_tuning(connection, plan=read.name)
        if changes or reset:
            if run.state is RunState.DONE:
                raise UsageError(f"plan {read.name} is done", remedy="there is nothing to tune")
            tables = {record.table for record in Journal(connection).read_steps(run.run_id)}
            if table and table not in tables:
                raise UsageError(
                    f"no step of plan {read.name} is about table {table}",
                    remedy=f"its tables: {', '.join(sorted(filter(None, tables)))}",
                )
            tuning = before.changed(table, changes, by)
            _ensure_valid(read, tuning)
            with reporting_standby(read, dsn, connection):
                request_tune(connection, plan=read.name, table=table, changes=changes, by=by)
            when = "from the next batch on" if is_at_work(read, connection) else "from the next run on"
            say(f"tuned by {by}, {when}")
        else:
            tuning = before
        for line in _paces(read, tuning):
            say(line)


def _ensure_valid(plan: Plan, tuning: Tuning) -> None:
    """Raise :class:`UsageError` if a stage's pace would not be one."""
    for stage in plan.stages:
        for table in ("", *tuning.tables):
            try:
                tuning.of(stage.pace, table)
            except ValidationError as error:
                said = "; ".join(map(_said, error.errors()))
                raise UsageError(
                    f"stage {stage.name}: {said}",
                    remedy=f"see the pace that is in force: online-migrate tune {plan.path}",
                ) from error


def _said(error: ErrorDetails) -> str:
    """What is wrong with which key."""
    keys = "".join(f"{key}: " for key in error["loc"])
    return keys + error["msg"].removeprefix("Value error, ")


def _paces(plan: Plan, tuning: Tuning) -> Iterator[str]:
    """The pace of each stage with a backfill, and of each table that has its own; * marks what was tuned."""
    for stage in plan.stages:
        if stage.phase is not Phase.BACKFILL:
            continue
        for table in ("", *sorted(filter(None, tuning.tables))):
            pace = tuning.of(stage.pace, table)
            yield f"stage {stage.name}{f', table {table}' * bool(table)}: {_pace_text(stage.pace, pace)}"
    if tuning.tables:
        yield f"* tuned, last by {tuning.by}; the plan's pace again: online-migrate tune {plan.path} --reset"


def _pace_text(planned: Pace, pace: Pace) -> str:
    before, now = planned.model_dump(mode="json"), pace.model_dump(mode="json")
    return ", ".join(
        f"{key} {now[key]}" + (f" * (plan: {before[key]})" if now[key] != before[key] else "") for key in KEYS
    )
