"""`runs` lists the runs of all plans in the database."""

from __future__ import annotations

import json

from tests.control.conftest import PLAN
from tests.desk import Desk


def test_runs_of_all_plans(control: Desk) -> None:
    """State, stage, and who; a database without a journal has none, and gets none."""
    assert "no plan has run in database" in control.call("runs", plan=False).out
    assert not control.has_journal()
    control.environ["SUDO_USER"] = "ada"
    assert control.call("run").code == 75
    assert control.call("run", "--approve", "swap").code == 0
    control.write(PLAN.replace("plan: small", "plan: other").replace("bot_id", "shop_id"))
    assert control.call("run").code == 75
    first, second = json.loads(control.call("runs", "--json", plan=False).out)
    assert (first["plan"], first["state"], first["stage"]) == ("small", "done", "")
    assert (second["plan"], second["state"], second["stage"]) == ("other", "waiting", "swap")
    assert first["by"].startswith("ada@")
    assert first["started_at"] < first["resumed_at"] < first["ended_at"]
    lines = control.call("runs", plan=False).out.splitlines()
    assert lines[1].startswith("other (run 2): waiting, stage swap, started "), lines
    assert "last runner by ada@" in lines[1]
