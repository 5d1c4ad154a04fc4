"""The throttler that feels what a commit costs."""

from __future__ import annotations

import re
from time import monotonic

import psycopg
import pytest

from online_migrate.backfill.throttlers.base import Throttle
from online_migrate.backfill.throttlers.commit_latency import CommitLatency
from online_migrate.clock import SystemClock
from online_migrate.postgres.connection import Connection, Connector
from tests.backfill.throttlers.standby import Pair, await_true


def test_a_commit_that_waits_holds_us(pair: Pair, synchronous: Connection) -> None:
    """A stalled synchronous standby is red after a bounded wait, in spite of no timeout for COMMIT;
    then green.
    """
    throttle = Throttle([CommitLatency(limit_s=0.2)], SystemClock(), every_s=0)
    assert not throttle.read(synchronous)[0].is_red
    pair.pause()
    began = monotonic()
    reading = throttle.read(synchronous)[0]
    assert monotonic() - began < 5
    assert reading.is_red
    assert re.fullmatch(r"our probe commit took \S+ m?s \(limit 200 ms\)", reading.reason)
    pair.resume()
    await_true(lambda: not throttle.read(synchronous)[0].is_red)
    assert synchronous.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_an_error_leaves_the_session_usable(pair: Pair) -> None:
    """Where no commit is possible, on a server turned standby, it is an error, not a session stuck in a
    transaction.
    """
    with Connector(dsn=pair.standby.dsn).open("test", may_be_standby=True) as connection:
        with pytest.raises(psycopg.Error):
            CommitLatency(limit_s=0.2).read(connection)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
