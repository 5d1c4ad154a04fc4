"""The README stays true: its commands exist, its excerpts are what the program prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from online_migrate.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {
        line.split("  #")[0].strip()
        for line in re.findall(r"^    (online-migrate .*)$", README, flags=re.MULTILINE)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_is_one_of_the_program(line: str) -> None:
    """Who types what the README says is never told 'no such command' or 'no such option'."""
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    assert isinstance(command, click.Command)
    context = command.make_context(name, list(arguments))
    assert context.params["plan"] == Path("plans/multi_tenant.yaml")


def test_every_command_of_the_program_is_in_the_readme_or_helps_itself() -> None:
    """No command is a secret: it stands in the README or in the first page of help."""
    shown = CliRunner().invoke(main, ["--help"]).output
    for name in main.commands:
        assert f"online-migrate {name}" in README or f"  {name} " in shown


def test_the_excerpt_of_explain_is_what_explain_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's picture of explain is no invention."""
    for variable in ("ONLINE_MIGRATE_DSN", "PGHOST", "PGDATABASE", "PGSERVICE", "PGPORT"):
        monkeypatch.delenv(variable, raising=False)
    found = re.search(r"<!-- explain: online-migrate (.*) -->\n```text\n(.*?)```", README, flags=re.DOTALL)
    assert found is not None
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, shlex.split(found[1]))
    assert result.exit_code == 0
    assert found[2] in result.output


@pytest.mark.parametrize("target", re.findall(r"^    make (\w+)", README, flags=re.MULTILINE))
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    """`make demo` and `make test` are targets of the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """A file that the README points at is there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_plan_of_the_readme_is_the_plan_of_the_project() -> None:
    """The YAML that the README shows stands in plans/multi_tenant.yaml, word by word."""
    plan = (ROOT / "plans" / "multi_tenant.yaml").read_text(encoding="utf-8")
    block = README.split("## A plan\n\n")[1].split("\n\n[plans/")[0]
    words = [" ".join(line.split("#")[0].split()) for line in block.splitlines()]
    known = {" ".join(line.split("#")[0].split()) for line in plan.splitlines()}
    assert [w for w in words if w and w != "stages:" and w not in known] == []
