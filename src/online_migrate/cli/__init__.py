"""The command line: parse arguments, connect the parts, print, set the exit code.  Makes no decisions."""

from __future__ import annotations

import errno
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

import online_migrate
from online_migrate.cli.output import is_json, json_line, note_format, say
from online_migrate.errors import Interrupted, OnlineMigrateError

SUMMARIES: Final = {
    "init": "Write a plan for a database, from its catalog.  Reads only.",
    "check": "List problems, risks and open questions.  Reads only.",
    "explain": "Print every step: its SQL, its locks, rows and bytes.",
    "locks": "Print every lock, for how long, and what waits behind it.",
    "grants": "Print the SQL that makes the role that the plan needs.",
    "run": "Apply the plan; the same command resumes it.",
    "status": "Show progress, and what the run is waiting for.",
    "runs": "List the runs of all plans in the database.",
    "history": "Show what was done in the database, and the SQL as executed.",
    "approve": "Open the gate of a stage.",
    "pause": "Hold the run between two batches or statements.",
    "resume": "End a pause.",
    "tune": "Change the pace of backfills while they run.",
    "dismiss": "Continue without a standby that has disconnected.",
    "stop": "Ask the runner to stop after its current batch.",
    "abort": "Cancel what the runner does now, and stop it.",
    "redo": "Reopen a finished step whose object was changed or dropped.",
    "verify": "Compare the database with what finished steps promise.",
    "report": "Write the run as one HTML file.",
    "schema": "Print the JSON Schema of plan files.",
    "completion": "Print the completion script of a shell.",
    "demo": "Show a whole migration on a throwaway PostgreSQL.",
}
"""the commands in the order of their use; a text each, so that ``--help`` imports none of them (0.1 s instead
of 0.8 s of CPU)"""

_EPILOG = """\b
Exit codes:
  0   done, or stopped where --through says
  1   a defect of online-migrate; its traceback is in the file that the message names
  2   wrong plan or wrong usage
  3   check found a problem, an object differs, or the server refused a statement
  4   lock not acquired; nothing was changed by that step
  5   verification failed
  6   another runner holds the lease
  7   the journal is of another version
  8   connection failed or lost
  9   the server has no disk space, memory, connections or locks left
  75  at a gate that waits for approval
  130 interrupted; the same command resumes

\b
Database: --dsn, or ONLINE_MIGRATE_DSN, or PGHOST, PGPORT, PGUSER, PGDATABASE.
Password: PGPASSWORD or ~/.pgpass; not in a DSN, where other users can see it."""


class _Commands(MutableMapping[str, click.Command]):
    """Imports a command's module when the command is used."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            if name not in SUMMARIES:
                raise KeyError(name)
            module = import_module(f"online_migrate.cli.{name}")
            self._loaded[name] = getattr(module, f"{name}_command")
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


class _Group(click.Group):
    """Turns every error into its text and exit code; no other place does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(SUMMARIES)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=text) for name, text in SUMMARIES.items() if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        note_format(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.exceptions.Abort):
            raise
        except click.ClickException as wrong:
            if not is_json():
                raise
            say(
                json_line("error", "error", message=wrong.format_message(), exit_code=wrong.exit_code),
                err=True,
            )
            raise click.exceptions.Exit(wrong.exit_code) from None
        except (Exception, KeyboardInterrupt) as caught:
            if isinstance(caught, OSError) and caught.errno == errno.EPIPE:
                raise  # stdout was closed: click ends the command quietly
            error = _shown(ctx, caught)
        raise click.exceptions.Exit(error.exit_code)


def _shown(ctx: click.Context, caught: BaseException) -> OnlineMigrateError:
    """``caught`` as an error of ours, printed; a defect's traceback is in a file."""
    from online_migrate.cli.common import echo_error  # noqa: PLC0415  # see SUMMARIES
    from online_migrate.cli.defect import keep_traceback, without_secrets  # noqa: PLC0415

    error = _known(caught)
    error.message, error.remedy = (without_secrets(ctx, text) for text in (error.message, error.remedy))
    if error.exit_code == OnlineMigrateError.exit_code:
        keep_traceback(ctx, error, caught)
    echo_error(error)
    return error


def _known(caught: BaseException) -> OnlineMigrateError:
    """``caught`` as an error of ours: what no code expects is a defect."""
    import psycopg  # noqa: PLC0415  # see SUMMARIES

    from online_migrate.cli.defect import as_defect  # noqa: PLC0415
    from online_migrate.postgres.server_errors import translate_error  # noqa: PLC0415

    if isinstance(caught, OnlineMigrateError):
        return caught
    if isinstance(caught, psycopg.Error):
        return translate_error(caught)
    if isinstance(caught, KeyboardInterrupt):
        return Interrupted(
            "interrupted",
            remedy="finished work is kept, nothing is half done; run the same command to resume",
        )
    return as_defect(caught)


@click.group(
    cls=_Group,
    commands=_Commands(),
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(online_migrate.__version__, prog_name="online-migrate")
def main() -> None:
    """Change the schema and the rows of a live PostgreSQL database, in stages that can stop and resume at any
    point.

    \b
    Example, in this order:
      online-migrate check   PLAN         fix what it marks `stop`
      online-migrate explain PLAN         read the SQL and the locks
      online-migrate run     PLAN         apply it; run it again to resume
      online-migrate status  PLAN --watch   in a second terminal
      online-migrate approve PLAN STAGE   open a gate, then run again
      online-migrate report  PLAN         keep the run as one HTML file
    """
