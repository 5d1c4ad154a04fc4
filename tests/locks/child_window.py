"""A runner in a process of its own, which the tests stop with SIGSTOP: one lock window over child, then
'done'.
"""

from __future__ import annotations

import os
import signal
import sys

from online_migrate.postgres import ladder
from tests.locks.beside import ddl, need, sessions_on


def main(dsn: str, stop_before: str) -> None:
    """``stop_before``: stop ourselves before the n-th statement of the work session, counted from the
    window's beginning.
    """
    ladder.FIRST_TIMEOUT_S = 0.6  # long enough for the test to see it wait
    with sessions_on(dsn) as site:
        left = int(stop_before)

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

        site.work.on_statement = count  # type: ignore[attr-defined]
        print("ready", site.work.info.backend_pid, flush=True)
        site.window(attempts=1, blocker_age_s=60.0).run(
            [need("child")], ddl("ALTER TABLE public.child ADD COLUMN extra int")
        )
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
