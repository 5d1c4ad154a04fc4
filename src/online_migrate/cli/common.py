"""What every command shares: the plan argument, the connection, errors as text."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from online_migrate.cli.defect import redact_in_errors
from online_migrate.cli.output import is_json, json_line, say
from online_migrate.clock import SystemClock
from online_migrate.errors import GateClosed, Interrupted, OnlineMigrateError, UsageError
from online_migrate.findings import Finding, Severity
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load_file
from online_migrate.plan.model import Plan, Stage
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connector
from online_migrate.printable import printable

CLOCK = SystemClock()
_F = TypeVar("_F", bound=Callable[..., Any])
_MARKS = {
    Severity.STOP: ("✗ stop", "red"),
    Severity.WARN: ("! warn", "yellow"),
    Severity.ASK: ("? ask ", "cyan"),
    Severity.INFO: ("· info", None),
}

_NO_ERROR = (GateClosed, Interrupted)
"""the run stopped where it should; the message says where"""

plan_argument = click.argument("plan", type=click.Path(path_type=Path), metavar="PLAN")


def dsn_option(command: _F) -> _F:
    """``--dsn``, by default from the environment."""
    return click.option(
        "--dsn",
        envvar="ONLINE_MIGRATE_DSN",
        default="",
        show_envvar=True,
        help="The database: a libpq connection string or URI.",
    )(command)


def has_database(dsn: str) -> bool:
    """Whether a database is named, by DSN or by libpq's variables."""
    return bool(dsn) or any(os.environ.get(v) for v in ("PGHOST", "PGDATABASE", "PGSERVICE", "PGPORT"))


def read_plan(path: Path) -> Plan:
    """The plan in a file, which can use every operation.  What is shown later holds none of its secrets."""
    plan = load_file(path, OPERATIONS)
    redact_in_errors(Secrets(plan.secrets, os.environ).redact)
    return plan


def stage_of(plan: Plan, name: str) -> Stage:
    """The plan's stage; raises :class:`UsageError` with the names of its stages."""
    found = plan.stage(name)
    if found is None:
        raise UsageError(
            f"the plan has no stage {name}", remedy=f"its stages: {', '.join(s.name for s in plan.stages)}"
        )
    return found


def connector_of(plan: Plan, dsn: str) -> Connector:
    """What opens sessions in the plan's schema."""
    return Connector(dsn=dsn, schema=plan.schema)


def echo_error(error: OnlineMigrateError) -> None:
    """Print what happened, where, and what to do next."""
    is_error = not isinstance(error, _NO_ERROR)
    if is_json():
        level = "error" if is_error else "warning"
        line = json_line(
            "error" if is_error else "stopped",
            level,
            message=error.message,
            remedy=error.remedy,
            exit_code=error.exit_code,
        )
        say(line, err=True)
        return
    text = f"{'error: ' if is_error else ''}{error.message}"
    say(text, err=True, colour="red" if is_error else "yellow")
    if error.remedy:
        say(f"next: {error.remedy}", err=True)


def echo_findings(findings: Iterable[Finding], *, err: bool = False) -> None:
    """Print each finding with its remedy below it; on a terminal, lines are wrapped between words."""
    if err and is_json():
        for finding in findings:
            say(_finding_line(finding), err=True)
        return
    is_terminal = (sys.stderr if err else sys.stdout).isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    for finding in findings:
        mark, colour = _MARKS[finding.severity]
        where = f"  [{finding.step}{f' on {finding.table}' if finding.table else ''}]" if finding.step else ""
        fact = fit(printable(f"{finding.fact}{where}"), len(mark) + 2, width)
        say(f"  {fact}", err=err, mark=mark, colour=colour)
        if finding.remedy:
            say(f"        → {fit(printable(finding.remedy), 10, width)}", err=err)
        if finding.manual:
            say(f"          {finding.manual}", err=err)


def _finding_line(finding: Finding) -> str:
    return json_line(
        "check_found",
        "warning",
        severity=finding.severity.value,
        code=finding.code,
        fact=finding.fact,
        step=finding.step,
        table=finding.table,
        remedy=finding.remedy,
        manual=finding.manual,
    )


def fit(text: str, indent: int, width: int | None) -> str:
    """``text`` in lines of at most ``width``, all but the first indented; a longer word, such as a path, is
    not cut.
    """
    if width is None:
        return text
    room = max(width - indent, 20)
    lines = [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part, room, break_long_words=False, break_on_hyphens=False)
    ]
    return f"\n{' ' * indent}".join(lines)
