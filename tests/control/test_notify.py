"""`run --notify`: a command is called when a person is needed, and never stops or delays the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from online_migrate import events as e
from online_migrate.observe import notify
from online_migrate.observe.notify import Occasions
from tests.desk import TOKEN, Desk

KEEP = """import json, os, sys
with open("called.jsonl", "a") as file:
    file.write(json.dumps({"environ": dict(os.environ), "given": json.load(sys.stdin)}) + "\\n")
print(os.environ)
"""


def calls(desk: Desk, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of `run`, and each call of the command."""
    (desk.folder / "keep.py").write_text(KEEP)
    called = desk.folder / "called.jsonl"
    called.unlink(missing_ok=True)
    code = desk.call("run", "--notify", f"{sys.executable} keep.py", *arguments).code
    return code, [json.loads(line) for line in called.read_text().splitlines()]


def test_gate_and_end_are_called_and_no_secret_is_passed_on(control: Desk) -> None:
    code, (gate,) = calls(control)
    assert (code, gate["given"]["event"], gate["given"]["stage"]) == (75, "gate", "swap")
    assert "every release writes bot_id" in gate["given"]["text"]
    environ = gate["environ"]
    assert environ["ONLINE_MIGRATE_EVENT"] == "gate"
    assert environ["ONLINE_MIGRATE_PLAN"] == "small"
    assert environ["ONLINE_MIGRATE_DATABASE"] == gate["given"]["database"]
    assert {n for n in environ if not n.startswith("ONLINE_MIGRATE_")} <= {*notify.PASSED_ON, "LC_CTYPE"}
    assert "ONLINE_MIGRATE_DSN" not in environ
    assert TOKEN not in json.dumps(gate)
    code, (end,) = calls(control, "--approve", "swap")
    assert (code, end["given"]["event"]) == (0, "end")


def test_a_failure_is_called_with_its_error(control: Desk) -> None:
    control.run_sql("ALTER TABLE users ADD COLUMN bot_id text")
    code, (failure,) = calls(control)
    assert code == 3
    assert failure["given"]["event"] == "failure"
    assert "exit code 3" in failure["given"]["text"]


def test_a_command_that_fails_is_a_warning(control: Desk) -> None:
    said = control.call("run", "--notify", "false")
    assert said.code == 75
    assert "the command of --notify failed with exit code 1 (gate)" in said.err


def test_a_command_that_hangs_is_killed_with_its_children(
    control: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "TIMEOUT_S", 1.0)
    script = control.folder / "hang.sh"
    script.write_text("#!/bin/sh\nsleep 600 & echo $! > child; echo $$ > parent; wait\n")
    script.chmod(0o700)
    said = control.call("run", "--notify", str(script))
    assert said.code == 75
    assert "was killed: it took longer than 1 s" in said.err
    assert not [name for name in ("parent", "child") if is_alive(control.folder / name)]


def is_alive(file: Path) -> bool:
    """A killed child of a killed parent may be a zombie until init has waited for it."""
    state = Path("/proc") / file.read_text().strip() / "status"
    return state.exists() and "State:\tZ" not in state.read_text()


def test_a_command_that_cannot_be_executed_is_refused_at_once(control: Desk) -> None:
    for wrong in ("no-such-command", "'", ""):
        said = control.call("run", "--notify", wrong)
        assert said.code == 2
        assert "--notify" in said.err
    assert not control.has_journal()


def test_a_hold_is_called_once_when_it_is_long() -> None:
    """A wait is reported every ten seconds: the first report at or past the limit calls."""
    occasions = Occasions(hold_s=60.0)
    wait: dict[str, Any] = {"stage": "fill", "table": "users", "kind": "standby_lag"}
    assert occasions.take(e.WaitStarted(**wait, reason="standby 70 s behind")) is None
    longer = [e.WaitContinues(**wait, reason="behind", seconds=s) for s in (50.0, 60.0, 70.0)]
    assert [bool(occasions.take(w)) for w in longer] == [False, True, False]
    assert occasions.take(e.WaitEnded(**wait, seconds=80.0)) is None
    assert occasions.take(longer[1]) is not None


def test_of_a_failed_step_the_error_is_in_the_sentence() -> None:
    occasions = Occasions(hold_s=60.0)
    assert occasions.take(e.StepFailed(error="could not create unique index")) is None
    occasion = occasions.take(e.RunEnded(outcome="failed", exit_code=3, seconds=1.0))
    assert occasion is not None
    assert occasion[0] == "failure"
    assert "could not create unique index" in occasion[1]
