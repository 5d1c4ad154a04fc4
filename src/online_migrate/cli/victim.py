"""``online-migrate run`` in a process that kills itself: what ``online-migrate demo --interrupt`` runs.

No command of its own: only the demo knows of it, and it asks by an environment variable.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from online_migrate.cli.common import echo_error, read_plan
from online_migrate.cli.run import Wiring, run_plan
from online_migrate.demo.victim import Executioner
from online_migrate.engine.runner import Options
from online_migrate.errors import OnlineMigrateError
from online_migrate.observe.web import LOOPBACK


def main(plan: Path, dsn: str, metrics_port: int | None = None) -> int:
    """Run the plan until killed; the exit code where the run ends before."""
    executioner = Executioner.from_environment()
    address = None if metrics_port is None else (LOOPBACK, metrics_port)
    wiring = Wiring(on_statement=executioner.on_statement, sinks=(executioner,), metrics_address=address)
    try:
        run_plan(read_plan(plan), dsn, Options(), wiring)
    except OnlineMigrateError as error:
        echo_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # as the demo calls it: run PLAN [--metrics-port PORT]
    _, _, path, *options = sys.argv
    sys.exit(main(Path(path), os.environ["ONLINE_MIGRATE_DSN"], int(options[-1]) if options else None))
