"""``online-migrate run`` in a process that kills itself, for ``online-migrate demo --interrupt``.

Not a command of its own: the demo starts it and passes the moment of the kill in an environment variable.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from online_migrate.cli.common import echo_error, read_plan
from online_migrate.cli.run import ProcessOptions, run_plan
from online_migrate.demo.self_kill import SelfKill
from online_migrate.engine.runner import Options
from online_migrate.errors import OnlineMigrateError
from online_migrate.observe.web import LOOPBACK


def main(plan: Path, dsn: str, metrics_port: int | None = None) -> int:
    """Run the plan until killed; the exit code if the run ends before."""
    self_kill = SelfKill.from_environment()
    address = None if metrics_port is None else (LOOPBACK, metrics_port)
    process = ProcessOptions(on_statement=self_kill.on_statement, sinks=(self_kill,), metrics_address=address)
    try:
        run_plan(read_plan(plan), dsn, Options(), process)
    except OnlineMigrateError as error:
        echo_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # called by the demo as: run PLAN [--metrics-port PORT]
    _, _, path, *options = sys.argv
    sys.exit(main(Path(path), os.environ["ONLINE_MIGRATE_DSN"], int(options[-1]) if options else None))
