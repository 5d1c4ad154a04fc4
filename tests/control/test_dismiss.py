"""`dismiss` lets a run continue without a standby that is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backfill.throttlers.standby import start_pair
from tests.control.conftest import PLAN, TABLES
from tests.control.test_pause import OPEN_VALVE, PACE, VALVE
from tests.desk import open_desk


def test_a_lost_standby_is_dismissed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, while the run waits for it; other names are refused."""
    monkeypatch.chdir(tmp_path)
    plan = PLAN.replace(
        "  - stage: columns\n",
        f"  - stage: columns\n    pace: {PACE}\n    hold_when: {{standby_lag: 1GiB}}\n",
    )
    with start_pair() as pair, open_desk(pair.primary.dsn, tmp_path, plan) as desk:
        desk.run_sql(*TABLES, *VALVE)
        child = desk.start()
        desk.await_true("SELECT to_regclass('online_migrate.cursor') IS NOT NULL", child)
        desk.await_true("SELECT count(*) > 0 FROM online_migrate.cursor WHERE batches > 1", child)
        assert "waits for no standby walreceiver" in desk.call("dismiss", "walreceiver").err
        pair.cut()
        child.await_words("online-migrate dismiss PLAN walreceiver")
        desk.await_true(
            "SELECT count(*) > 0 FROM online_migrate.history WHERE fields ->> 'kind' = 'standby_lag'", child
        )
        wrong = desk.call("dismiss", "replica_2")
        assert wrong.code == 2
        assert "the run waits for no standby replica_2; it waits: standby walreceiver" in wrong.err
        desk.run_sql(OPEN_VALVE)
        said = desk.call("dismiss", "walreceiver", "--by", "ada")
        assert said.code == 0, said.all
        assert "dismissed by ada: standby walreceiver" in said.out
        assert child.wait() == 75, child.said
        assert "standby walreceiver dismissed by ada" in child.said
        late = desk.call("dismiss", "walreceiver")
        assert late.code == 2
        assert "a new one waits for no lost standby" in late.err
