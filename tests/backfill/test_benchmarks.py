"""Each benchmark runs, by its own command line, and prints what docs/benchmarks.md is made of; figures are
not asserted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backfill import WAYS
from benchmarks.ground import SHAPES

pytestmark = pytest.mark.timeout(600)  # short on a calm machine; a busy one may take its time

ROOT = Path(__file__).parents[2]
PROMISED = {
    "shape", "way", "rows", "seconds", "rows_per_s", "wal_bytes", "table_ratio", "index_ratio", "hot_share",
    "speed_ratio", "wal_ratio", "cpu_s", "peak_memory_bytes", "machine",
}  # fmt: skip


def measure(name: str, *arguments: str) -> Any:
    """The JSON that a short run prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_backfill_measures_every_way_on_every_shape() -> None:
    found = measure("backfill", "--rows", "2000", "--rounds", "1")
    assert [(f["shape"], f["way"]) for f in found] == [(shape, way) for shape in SHAPES for way in WAYS]
    assert all(f.keys() >= PROMISED and f["rows"] == 2000 for f in found)
    ours = [f for f in found if f["way"] == "ours" and f["shape"] not in ("index", "wide")]
    assert all(f["hot_share"] > 0.8 and f["table_ratio"] < 1.2 for f in ours)


def test_growth_measures_sizes_snapshots_workers_resume_and_a_standby() -> None:
    found = measure("growth", "--rows", "3000", "--times", "2")
    assert [r["rows"] for r in found["runs"]] == [3000, 3000, 3000, 6000, 6000, 6000, 3000, 6000, 3000, 6000]
    held = found["runs"][2]
    assert held["what"] == "a snapshot held all the time"
    assert held["hot_share"] == 0
    assert len(found["time_ratios"]) == 3
    assert min(found["resume_s"], found["hold_s"], found["back_s"]) > 0


def test_impact_measures_ours_beside_nothing_and_apart() -> None:
    found = measure("impact", "--rows", "20000", "--pairs", "1", "--apart", "1", "--seconds", "1")
    assert len(found["windows"]) == len(found["p99_ratios"]) == 5
    for name, (felt,) in found["windows"].items():
        assert felt["transactions"] > 0
        assert felt["failures"] == 0
        assert (felt["rows_per_s"] > 0) is not name.startswith("nothing")
