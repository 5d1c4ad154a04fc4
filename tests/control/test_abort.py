"""`abort` cancels a long statement of the runner, from another terminal."""

from __future__ import annotations

import json
from typing import Final

from tests.control.conftest import PLAN
from tests.desk import Desk

BUILD: Final = """  - stage: index
    steps:
      - create_index: {table: users, name: users_bot, columns: [bot_id]}
  - stage: swap"""
BUILDING: Final = "SELECT count(*) > 0 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
IS_VALID: Final = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('public.users_bot')"


def test_a_concurrent_build_is_cancelled(control: Desk) -> None:
    """It waits for a transaction that does not end; `stop` would wait with it.  The next run builds again."""
    control.write(PLAN.replace("  - stage: swap", BUILD))
    none = control.call("abort")
    assert none.code == 2, none.all
    assert control.call("run", "--through", "columns").code == 0
    with control.connect() as other, other.transaction():
        other.execute("INSERT INTO users (tg) VALUES (5000)")
        child = control.start()
        control.await_true(BUILDING, child)
        said = control.call("abort", "--by", "ada")
        assert said.code == 0, said.all
        assert "to cancel its statement and stop" in said.out
        assert "stopped\nnext: online-migrate run plan.yaml" in said.out
        assert child.wait() == 130
        assert "cancelled: requested by ada" in child.said
        assert control.ask(IS_VALID) is not True
    assert json.loads(control.call("status", "--json").out)["state"] == "stopped"
    assert control.call("run").code == 75
    assert control.ask(IS_VALID) is True
