"""A backfill beside a streaming standby that stops replaying: it holds, says so, and goes on by itself."""

from __future__ import annotations

import threading
import time

from benchmarks.workbench import Heard, workbench
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.plan.model import HoldWhen, Pace
from tests.backfill.tables import ask, make_table
from tests.backfill.throttlers.standby import await_true, start_pair

HOLDS_WITHIN_S = 2.0
BUSY_MACHINE_S = 1.0
"""the standby's own answer, and a test machine that others use"""


def test_a_paused_standby_holds_the_backfill_within_two_seconds() -> None:
    """From the moment at which the limit is passed; afterwards no signal is needed that all is well
    again.
    """
    heard, done = Heard(), []
    pace = Pace.model_construct(duty=0.3, max_rows=1_500)
    with start_pair() as pair:
        make_table(pair.primary.dsn, 100_000)

        def work() -> None:
            hold_when = HoldWhen.model_construct(standby_lag=512 * 1024)
            with workbench(pair.primary.dsn, "t", pace=pace, hold_when=hold_when, emit=heard.emit) as context:
                done.append(Backfill(context, table="t", column="c", value=Constant.of(1)).run())

        thread = threading.Thread(target=work)
        thread.start()
        await_true(lambda: len(heard.of("batch_done")) >= 5)
        pair.pause()
        lag = "SELECT max(pg_current_wal_lsn() - replay_lsn) > 512 * 1024 FROM pg_stat_replication"
        await_true(lambda: ask(pair.primary.dsn, lag) is True)
        passed = time.monotonic()
        await_true(lambda: bool(heard.of("wait_started")))
        assert time.monotonic() - passed <= HOLDS_WITHIN_S + BUSY_MACHINE_S
        batches = len(heard.of("batch_done"))
        time.sleep(1.0)
        assert len(heard.of("batch_done")) <= batches + 1
        pair.resume()
        thread.join(timeout=60)
        assert done == [100_000]
        assert heard.of("wait_started")[0].kind == "standby_lag"
        assert heard.of("wait_ended")
        assert ask(pair.primary.dsn, "SELECT count(*) FROM t WHERE c IS NULL") == 0
