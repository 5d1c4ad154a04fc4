"""docs/backfill.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks.workbench import workbench
from online_migrate.backfill import batch, progress, strategy, sweep, worker
from online_migrate.backfill.context import Target
from online_migrate.backfill.values import Constant
from online_migrate.operations.backfill import Backfill, BackfillParams
from online_migrate.plan.yaml_file import read_document
from tests.backfill.tables import make_table, table_info

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "backfill.md").read_text()


def test_every_value_that_is_shown_can_be_written_in_a_plan() -> None:
    """A line that is copied from the page is a step that loads."""
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    data: list[Any] = [read_document(block, "backfill.md").data for block in blocks]
    steps = [step["backfill"] for block in data for step in block]
    assert len(steps) == 4
    for params in steps:
        assert Backfill().title(BackfillParams.model_validate(params)).startswith("backfill ")


def test_its_numbers_are_the_code_s() -> None:
    """A constant that changes changes the page."""
    shown = " ".join(TEXT.split())
    assert f"{strategy.CHUNK_PAGES:,} pages (64 MiB)" in shown
    assert f"(we use up to {strategy.MOST_STRIPES})" in shown
    assert f"of up to {strategy.SMALL_PAGES} pages" in shown
    assert f"lock_timeout = '{batch.ROW_LOCK_TIMEOUT}'" in shown
    assert f"after {sweep.LATE_ROUNDS} rounds" in shown
    assert f"LIMIT {sweep.LATE_LIMIT}" in shown
    assert f"every {worker.MEASURE_WAL_EVERY}th batch" in shown
    assert f"every {progress.FORECAST_AGAIN_S / 60:.0f} minutes, a note" in shown


def test_the_batch_that_is_shown_is_the_one_that_runs(database: str) -> None:
    """Its settings, its fence, its UPDATE and its cursor, in this order."""
    make_table(database, 10)
    with workbench(database, "t") as context:
        target = Target(table=table_info(context.work), column="bot_id", value=Constant.of(1))
        settings = batch.Writer(context, target)._settings().as_string(None)
    shown = re.sub(r"\s+", " ", TEXT)
    assert settings.startswith("BEGIN; SET LOCAL lock_timeout = '50ms'; SET LOCAL synchronous_commit = off;")
    assert "BEGIN; SET LOCAL lock_timeout = '50ms'; SET LOCAL synchronous_commit = off;" in shown
    assert settings.index("online_migrate.fence") > settings.index("enable_seqscan")
