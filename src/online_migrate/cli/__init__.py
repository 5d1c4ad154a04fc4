"""The command line: parse, wire, print, exit code; no decisions."""

from __future__ import annotations

import sys
from typing import Any

import click
import psycopg

import online_migrate
from online_migrate.cli.approve import approve_command
from online_migrate.cli.check import check_command
from online_migrate.cli.common import echo_error
from online_migrate.cli.demo import demo_command
from online_migrate.cli.explain import explain_command
from online_migrate.cli.locks import locks_command
from online_migrate.cli.report import report_command
from online_migrate.cli.run import run_command
from online_migrate.cli.schema import schema_command
from online_migrate.cli.status import status_command
from online_migrate.cli.stop import stop_command
from online_migrate.cli.verify import verify_command
from online_migrate.errors import Interrupted, OnlineMigrateError
from online_migrate.postgres.server_errors import translate_error

_EPILOG = """\b
Exit codes:
  0   done, or stopped where it was asked to
  1   unexpected            2   plan or usage
  3   check or conflict, nothing run
  4   lock not had          5   verification failed
  6   another runner        7   journal of another version
  8   connection lost      75   at a gate that waits for approval
  130 interrupted, resumable

\b
The database: --dsn, or ONLINE_MIGRATE_DSN, or libpq's PGHOST, PGPORT, PGUSER, PGDATABASE.
A password belongs into PGPASSWORD or ~/.pgpass, not into a DSN on the command line."""


class _Group(click.Group):
    """Turns our errors into text and exit code, in this one place."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OnlineMigrateError as caught:
            error = caught
        except psycopg.Error as caught:
            error = translate_error(caught)
        except KeyboardInterrupt:
            error = Interrupted(
                "interrupted", remedy="what was done is kept, nothing is half done; call it again"
            )
        echo_error(error)
        raise click.exceptions.Exit(error.exit_code)


@click.group(cls=_Group, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(online_migrate.__version__, prog_name="online-migrate")
def main() -> None:
    """Change the schema and the rows of a live PostgreSQL database, in stages that can be stopped and resumed anywhere.

    \b
    A night with it:
      online-migrate check   PLAN     what is wrong, risky or open; reads only
      online-migrate explain PLAN     every statement, its locks, how long
      online-migrate locks   PLAN     every lock, and what waits behind it
      online-migrate run     PLAN     do it; the same command goes on after any stop
      online-migrate status  PLAN     how far it is, and why it waits
      online-migrate approve PLAN STAGE
      online-migrate report  PLAN     the whole run as one HTML file
    """


for _command in (
    check_command,
    explain_command,
    locks_command,
    run_command,
    status_command,
    approve_command,
    stop_command,
    verify_command,
    report_command,
    schema_command,
    demo_command,
):
    main.add_command(_command)


if __name__ == "__main__":
    sys.exit(main())
