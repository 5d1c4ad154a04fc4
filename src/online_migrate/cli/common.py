"""What every command shares: the plan argument, the connection, errors as text."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from online_migrate.cli.defect import redact_in_errors
from online_migrate.cli.output import is_json, json_line, say, say_note
from online_migrate.clock import Signal, SystemClock
from online_migrate.errors import GateClosed, Interrupted, OnlineMigrateError, UsageError
from online_migrate.events import Event
from online_migrate.findings import Finding, Severity
from online_migrate.journal.commit_waits import KIND as STANDBY_COMMIT
from online_migrate.journal.commit_waits import reporting_commits
from online_migrate.journal.lease import person, read_holder, read_sessions
from online_migrate.journal.records import RunRecord
from online_migrate.journal.schema import ensure_readable
from online_migrate.journal.store import Journal
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load_file
from online_migrate.plan.model import Plan, Stage
from online_migrate.plan.secrets import Secrets
from online_migrate.plan.units import read_seconds
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.printable import printable

CLOCK = SystemClock()
_COMMITTED = (
    "The change is committed on the primary, and is seen by other sessions when the wait ends. Ctrl-C ends"
    " the wait and keeps the change; a failover to a standby that lacks it loses it: check with"
    " `online-migrate status PLAN`."
)
"""Source: PostgreSQL manual, 27.2.8; SyncRepWaitForLSN in syncrep.c."""
TAKEN_WITHIN_S = 30.0
"""how long a command waits for the runner, which may be within a long statement"""
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


def by_option(begin: str, more: str = "") -> Callable[[_F], _F]:
    """``--by``: the person behind the command; its help starts with ``begin``."""
    return click.option(
        "--by",
        default=person,
        help=f"{begin}; by default the user who typed the command ($SUDO_USER behind sudo), on this host."
        f"{more}",
        show_default="user@host",
    )


def duration(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """A duration as plans spell it, in seconds."""
    if text is None:
        return None
    try:
        return read_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error


def seconds_until(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Seconds until the next time that this host's clock shows ``HH:MM``."""
    if text is None:
        return None
    try:
        at = time.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time such as 06:00", param=parameter) from None
    now = datetime.now().astimezone()
    days = 0 if datetime.combine(now.date(), at).astimezone() > now else 1
    until = datetime.combine(now.date() + timedelta(days=days), at).astimezone()
    return (until - now).total_seconds()


def until_options(what: str) -> Callable[[_F], _F]:
    """``--until`` and ``--for``, which :func:`limit_of` reads; ``what`` happens then."""

    def add(command: _F) -> _F:
        after = click.option(
            "--for", "for_s", metavar="TIME", callback=duration, help=f"{what} after this, such as 2h."
        )
        until = click.option(
            "--until",
            metavar="HH:MM",
            callback=seconds_until,
            help=f"{what} when this host's clock shows this time.",
        )
        return until(after(command))

    return add


def limit_of(until: float | None, for_s: float | None) -> float | None:
    """Seconds from now until what ``--until`` or ``--for`` says; None if neither is given."""
    if until is not None and for_s is not None:
        raise UsageError("--until and --for exclude each other", remedy="leave one of them out")
    return until if for_s is None else for_s


def run_of(plan: Plan, connection: Connection) -> RunRecord:
    """The newest run of the plan; raises :class:`UsageError` if it never ran."""
    run = Journal(connection).read_run(plan.name) if ensure_readable(connection) else None
    if run is None:
        raise UsageError(
            f"there is no run of plan {plan.name} in database {connection.info.dbname} on"
            f" {connection.info.host}",
            remedy=f"start one: online-migrate run {plan.path}",
        )
    return run


def is_at_work(plan: Plan, connection: Connection) -> bool:
    """Is a runner of the plan connected?"""
    holder = read_holder(connection)
    return holder is not None and holder.plan == plan.name and bool(read_sessions(connection))


def await_taken(connection: Connection, is_taken: Callable[[], bool], plan: Plan) -> bool:
    """Wait until the runner has done what was requested, its session has ended, or ``TAKEN_WITHIN_S`` have
    passed; whether it has.
    """
    deadline = CLOCK.monotonic() + TAKEN_WITHIN_S
    while not is_taken():
        if not is_at_work(plan, connection) or CLOCK.monotonic() > deadline:
            return False
        CLOCK.wait(0.2, Signal())
    return True


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


@contextmanager
def reporting_standby(plan: Plan, dsn: str, connection: Connection) -> Iterator[None]:
    """Say on stderr that a commit of ``connection`` waits for a synchronous standby, and how to leave."""
    with reporting_commits(connector_of(plan, dsn), say_standby, CLOCK, connection):
        yield


def say_standby(_: type[Event], *, kind: str, reason: str = "", **__: object) -> None:
    """A wait for a synchronous standby, as :func:`reporting_commits` reports it."""
    if kind == STANDBY_COMMIT and reason:
        say_note(f"{reason} {_COMMITTED}", level="warning")


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
