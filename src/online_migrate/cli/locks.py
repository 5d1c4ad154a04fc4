"""online-migrate locks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from online_migrate.cli.common import connector_of, dsn_option, has_database, plan_argument, read_plan
from online_migrate.cli.output import say
from online_migrate.cli.plan_names import complete_stage
from online_migrate.engine.explain import Explanation, explain
from online_migrate.engine.lock_table import TABLE, LockLine, lock_lines
from online_migrate.engine.survey import survey
from online_migrate.plan.model import LockRules
from online_migrate.postgres.connection import ensure_supported


@click.command("locks")
@plan_argument
@dsn_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
)
@click.option("--stage", "only", metavar="STAGE", shell_complete=complete_stage, help="Only this stage.")
def locks_command(plan: Path, dsn: str, format_: str, only: str | None) -> None:
    """Print every lock that PLAN takes: on what, for how long, and what waits behind it.

    `run` compares these declarations with pg_locks before it commits.  Works without a database too.

    \b
    Example:
      online-migrate locks plans/multi_tenant.yaml --stage constraints
    """
    read = read_plan(plan)
    if has_database(dsn):
        with connector_of(read, dsn).open("locks") as connection:
            ensure_supported(connection.info.server_version)
            explanation = explain(read, survey(read, connection))
    else:
        explanation = explain(read, None)
    lines = [line for line in lock_lines(explanation) if only in (None, line.stage)]
    if format_ == "json":
        click.echo(json.dumps([_json(line) for line in lines], indent=2))
    else:
        text = markdown_lines(lines) if format_ == "markdown" else _text_lines(explanation, lines)
        for line in text:
            say(line)


def markdown_lines(lines: list[LockLine]) -> Iterator[str]:
    """The locks as a Markdown table, for the docs."""
    yield "| stage | step | statement | lock | on | how long | what waits behind it |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for line in lines:
        on = ", ".join(f"`{r}`" for r in line.relations)
        yield (
            f"| {line.stage} | {line.step.replace('<', '&lt;')} | [{line.statement}]({line.manual}) |"
            f" {line.mode.sql} | {on}"
            f" | {line.how_long} | {line.waits_behind} |"
        )


def _text_lines(explanation: Explanation, lines: list[LockLine]) -> Iterator[str]:
    yield f"locks of plan {explanation.plan.name}"
    yield from _rules_lines(explanation.plan.locks)
    if not explanation.has_database:
        yield "no database given (--dsn): more tables of a set, and the names of dropped uniques, are unknown"
    for stage, of_stage in groupby(lines, key=lambda line: line.stage):
        yield ""
        yield f"stage {stage}"
        for step, of_step in groupby(of_stage, key=lambda line: line.step):
            members = list(of_step)
            count = len(members[0].tables)
            yield f"  {step}" + (f", {count} tables, one at a time" if count > 1 else "")
            yield from (part for line in members for part in _line(line))


def _line(line: LockLine) -> Iterator[str]:
    on = ", ".join("each table" if r == TABLE else r for r in line.relations)
    yield f"    {line.mode.sql} on {on}: {line.how_long}; waits behind it: {line.waits_behind}"
    yield f"      {line.statement}  {line.manual}"


def _rules_lines(rules: LockRules) -> Iterator[str]:
    yield (
        f"each lock: at most {rules.attempts} attempts, lock_timeout from 50 ms to 0.8 × deadlock_timeout;"
        " held for at"
        f" most {rules.hold_cap:g} s, commit included"
    )
    yield (
        f"exposure budget: application statements wait behind lock requests for at most {rules.exposure:g} s"
        " per table"
        f" and {rules.exposure_run:g} s per run, then the run stops"
    )
    yield (
        f"outside the lock queue, the run waits up to {rules.lock_wait:g} s for blocking transactions to end"
    )


def _json(line: LockLine) -> dict[str, Any]:
    return {
        "stage": line.stage,
        "step": line.step,
        "tables": list(line.tables),
        "statement": line.statement,
        "relations": list(line.relations),
        "lock": line.mode.sql,
        "instant": not line.is_long,
        "waits_behind": line.waits_behind,
        "manual": line.manual,
    }
