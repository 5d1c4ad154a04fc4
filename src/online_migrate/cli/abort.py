"""online-migrate abort."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import by_option, dsn_option, plan_argument
from online_migrate.cli.stop import end_run
from online_migrate.journal.states import RequestKind


@click.command("abort")
@plan_argument
@dsn_option
@by_option("Who aborts")
def abort_command(plan: Path, dsn: str, by: str) -> None:
    """Cancel what the runner of PLAN does now, and stop it, from any host.

    A concurrent index build, a VALIDATE or a VACUUM is cancelled, and the next `run` starts it again from its
    beginning; it also drops an index that is left invalid.  Batches that are committed are kept.  A batch or
    a lock window that runs, and the proof of a backfill, end first.  `stop` lets every statement finish.

    \b
    Example:
      online-migrate abort plans/multi_tenant.yaml
    """
    end_run(plan, dsn, RequestKind.ABORT, by, "cancel its statement and stop")
