"""online-migrate explain."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from online_migrate.cli.common import (
    connector_of,
    dsn_option,
    has_database,
    plan_argument,
    read_plan,
    stage_of,
)
from online_migrate.cli.output import say
from online_migrate.cli.plan_names import complete_stage
from online_migrate.engine.explain import ExplainedStep, Explanation, explain
from online_migrate.engine.survey import survey
from online_migrate.operations.contract.base import Kind, Statement
from online_migrate.postgres.locks import LockNeed

HOW = {
    Kind.WINDOW: "lock window, instant",
    Kind.LONG: "long-running; blocks no application statements",
    Kind.BATCH: "in batches",
    Kind.WRITE: "a short transaction",
    Kind.READ: "reads",
}


@click.command("explain")
@plan_argument
@dsn_option
@click.option(
    "--format", "format_", type=click.Choice(["text", "json", "sql"]), default="text", show_default=True
)
@click.option("--stage", "only", metavar="STAGE", shell_complete=complete_stage, help="Only this stage.")
def explain_command(plan: Path, dsn: str, format_: str, only: str | None) -> None:
    """Print every step of PLAN: its SQL and its locks, and with a database its rows and bytes.

    Works without a database too; then it shows only the tables that the plan names.

    \b
    Example:
      online-migrate explain plans/multi_tenant.yaml
      online-migrate explain plans/multi_tenant.yaml --stage swap --format sql
    """
    read = read_plan(plan)
    if only is not None:
        stage_of(read, only)
    if has_database(dsn):
        with connector_of(read, dsn).open("explain") as connection:
            explanation = explain(read, survey(read, connection))
    else:
        explanation = explain(read, None)
    steps = [s for s in explanation.steps if only in (None, s.stage)]
    if format_ == "json":
        click.echo(json.dumps([_json(s) for s in steps], indent=2))
    else:
        lines = _sql_lines(steps) if format_ == "sql" else _text_lines(explanation, steps)
        if format_ == "sql" and not sys.stdout.isatty():
            click.echo("\n".join(lines))  # for a program: to the letter
            return
        for line in lines:
            say(line)


def _text_lines(explanation: Explanation, steps: list[ExplainedStep]) -> Iterator[str]:
    stages = len({s.stage for s in steps})
    yield f"plan {explanation.plan.name}: {stages} stage{'s' if stages > 1 else ''}, {len(steps)} steps"
    if not explanation.has_database:
        yield "no database given (--dsn): rows, bytes and existing objects are unknown"
    for name, root in explanation.open_sets.items():
        yield f"set {name}: more tables that reference {root} may exist; --dsn shows them"
    for stage_name, in_stage in groupby(steps, key=lambda s: s.stage):
        stage = explanation.plan.stage(stage_name)
        gate = f", gate: {stage.gate.approval}" if stage is not None and stage.gate is not None else ""
        members = list(in_stage)
        yield ""
        yield f"stage {stage_name} ({members[0].phase}{gate})"
        for title, same in groupby(members, key=lambda s: s.step):
            tables = list(same)
            yield f"  {title}{_workers(tables[0])}"
            for step in tables:
                yield from _step_lines(step)


def _workers(step: ExplainedStep) -> str:
    if step.workers > 1:
        return f": {step.workers} tables at a time, the largest first"
    return f": one table at a time, {step.why_alone}" if step.why_alone else ""


def _step_lines(step: ExplainedStep) -> Iterator[str]:
    size = (
        "" if step.rows is None or step.bytes is None else f", about {step.rows:,} rows, {_size(step.bytes)}"
    )
    yield (
        f"    {step.table or '(the database)'}:"
        f" {'instant' if step.is_instant else 'long'}{size}{', done' if step.is_done else ''}"
    )
    for position, statement in enumerate(step.statements):
        how = HOW[statement.kind] + (f": {statement.note}" if statement.note else "")
        yield f"      -- {how}"
        yield from (f"      {line}" for line in f"{statement.text};".splitlines())
        rest = step.statements[position + 1 :]
        if not rest or rest[0].group != statement.group or rest[0].locks != statement.locks:
            yield from (f"      lock: {_lock(need)}" for need in statement.locks)


def _lock(need: LockNeed) -> str:
    how = "for a scan" if need.is_long else "instant"
    return f"{need.mode.sql} on {need.relation}, {how}; waits behind it: {need.mode.waits_behind}"


def _sql_lines(steps: list[ExplainedStep]) -> Iterator[str]:
    for step in steps:
        yield f"-- {step.stage} / {step.step} / {step.table}"
        yield from (f"{s.text};" for s in step.statements)


def _json(step: ExplainedStep) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "phase": step.phase,
        "step": step.step,
        "operation": step.operation,
        "table": step.table,
        "workers": step.workers,
        "instant": step.is_instant,
        "done": step.is_done,
        "rows": step.rows,
        "bytes": step.bytes,
        "statements": [_statement_json(s) for s in step.statements],
        "locks": [
            {
                "relation": n.relation,
                "lock": n.mode.sql,
                "instant": not n.is_long,
                "waits_behind": n.mode.waits_behind,
            }
            for n in step.locks
        ],
    }


def _statement_json(statement: Statement) -> dict[str, str]:
    return {"sql": statement.text, "kind": statement.kind.value, "note": statement.note}


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
