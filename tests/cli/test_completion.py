"""Tab completes commands, options, and what a plan file names, without a database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from online_migrate.cli import SUMMARIES, main
from tests.desk import PLANS

PLAN: Final = str(PLANS / "multi_tenant.yaml")


def completed(*words: str, shell: str = "zsh") -> list[str]:
    """What a shell is offered for the last word, with zsh's type, name and help."""
    line = " ".join(["online-migrate", *words])
    environ = {
        "_ONLINE_MIGRATE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "PGHOST": "nowhere.invalid",
    }
    return CliRunner().invoke(main, [], prog_name="online-migrate", env=environ).output.splitlines()


def names(*words: str) -> list[str]:
    return completed(*words)[1::3]


def test_commands_and_their_options() -> None:
    assert names("") == list(SUMMARIES)
    assert names("app") == ["approve"]
    assert "--through" in names("run", "--t")
    assert names("completion", "") == ["bash", "zsh", "fish"]


def test_a_plan_is_a_file() -> None:
    assert completed("run", "pla")[0] == "file"


def test_what_a_plan_names() -> None:
    stages = names("explain", PLAN, "--stage", "''")
    assert stages[:2] == ["tables", "columns"]
    assert names("run", PLAN, "--through", "sw") == ["swap"]
    assert names("run", PLAN, "--approve", "''") == ["swap"] == names("approve", PLAN, "''")
    assert "create_tables" in " ".join(names("redo", PLAN, "''"))
    assert all("foreign" in name for name in names("redo", PLAN, "--stage", "constraints", "add_"))
    assert names("redo", PLAN, "--table", "use")[0] == "users"


@pytest.mark.parametrize("plan", ["missing.yaml", "broken.yaml", "."])
def test_a_plan_that_cannot_be_read_offers_nothing(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback at the prompt would be worse."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("plan: [")
    assert names("approve", plan, "''") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_program(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell], prog_name="online-migrate").output
    assert f"_ONLINE_MIGRATE_COMPLETE={shell}_complete" in script
    assert "_online_migrate_completion" in script


def test_bash_completes_with_it() -> None:
    """The script in a real bash."""
    source = """eval "$(online-migrate completion bash)"
COMP_WORDS=(online-migrate run "$1" --through sw); COMP_CWORD=4
_online_migrate_completion online-migrate sw --through; echo "${COMPREPLY[@]}\""""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "--norc", "-c", source, "bash", PLAN],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "swap", said
