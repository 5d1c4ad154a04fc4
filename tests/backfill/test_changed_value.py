"""A value that the plan changes while its backfill is running."""

from __future__ import annotations

import pytest

from benchmarks.workbench import Heard, begin_journal, workbench
from online_migrate.backfill.values import Constant
from online_migrate.backfill.worker import Backfill
from online_migrate.errors import Interrupted
from online_migrate.plan.model import Pace
from tests.backfill.tables import ask, do, make_table, session
from tests.backfill.test_worker import StopAfter

SMALL = Pace.model_construct(duty=1.0, min_rows=50, max_rows=200)


def test_the_pass_begins_again_with_a_note_and_the_journal_has_the_new_value(database: str) -> None:
    """After --accept-changed-plan: what was written stays, which is said; what is left gets the new value."""
    make_table(database, 3_000)
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    stop = StopAfter(5)
    with (
        workbench(database, "t", pace=SMALL, begun=begun, emit=stop.emit, signal=stop.signal) as context,
        pytest.raises(Interrupted),
    ):
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    done = int(str(ask(database, "SELECT count(*) FROM t WHERE c = 1")))
    heard = Heard()
    with workbench(database, "t", pace=SMALL, begun=begun, emit=heard.emit) as context:
        assert Backfill(context, table="t", column="c", value=Constant.of(2)).run() == 3_000
    (note,) = heard.of("note")
    assert "c = 2, before c = 1" in note.message
    assert f"the {done:,} rows that were filled keep their value" in note.message
    assert heard.of("backfill_started")[0].pages_done == 0
    assert ask(database, "SELECT count(*) FROM t WHERE c = 1") == done
    assert ask(database, "SELECT count(*) FROM t WHERE c = 2") == 3_000 - done
    assert ask(database, "SELECT column_name || ' = ' || value FROM online_migrate.cursor") == "c = 2"


def test_a_sweep_that_is_left_is_told_of_it_too(database: str) -> None:
    """The pass was over before the plan changed: the note is still logged, once."""
    make_table(database, 500)
    with session(database) as connection:
        begun = begin_journal(connection, ["t"])
    with workbench(database, "t", begun=begun) as context:
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
    do(database, "UPDATE t SET c = NULL WHERE id <= 3")
    for notes in (1, 0):
        heard = Heard()
        with workbench(database, "t", begun=begun, emit=heard.emit) as context:
            Backfill(context, table="t", column="c", value=Constant.of(2)).run()
        assert len(heard.of("note")) == notes
    assert ask(database, "SELECT count(*) FROM t WHERE c = 2") == 3


def test_a_chunk_may_be_as_long_as_a_table(database: str) -> None:
    """A table has up to 2^32 pages, and a sweep walks them as one chunk."""
    make_table(database, 10)
    with workbench(database, "t") as context:
        Backfill(context, table="t", column="c", value=Constant.of(1)).run()
        context.journal.connection.execute("UPDATE online_migrate.cursor SET chunk_pages = 4294967295")
        cursor = context.journal.read_cursor(context.run_id, context.key)
    assert cursor is not None
    assert cursor.chunk_pages == 2**32 - 1
