"""The README stays true: its commands exist, its figures were measured, its excerpts are what the program
prints.
"""

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
NIGHT = (ROOT / "docs" / "night.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {
        line.split("  #")[0].split(" > ")[0].strip()
        for line in re.findall(r"^    (online-migrate .*)$", README, flags=re.MULTILINE)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_is_one_of_the_program(line: str) -> None:
    """An operator who types what the README says never gets 'no such command' or 'no such option'."""
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    assert isinstance(command, click.Command)
    context = command.make_context(name, list(arguments), parent=click.Context(main, **main.context_settings))
    assert context.params["plan"] == Path("plans/multi_tenant.yaml")


def test_every_command_of_the_program_is_in_the_readme_or_helps_itself() -> None:
    """No command is hidden: the README or the first page of help shows it."""
    shown = CliRunner().invoke(main, ["--help"]).output
    for name in main.commands:
        assert f"online-migrate {name}" in README or f"  {name} " in shown


def test_the_excerpt_of_explain_is_what_explain_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/night.md shows of explain was not made up."""
    for variable in ("ONLINE_MIGRATE_DSN", "PGHOST", "PGDATABASE", "PGSERVICE", "PGPORT"):
        monkeypatch.delenv(variable, raising=False)
    found = re.search(
        r"<!-- make docs: printed \d+ (explain .*) -->\n```text\n(.*?)```", NIGHT, flags=re.DOTALL
    )
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
    """Every file that the README links to exists."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_plan_of_the_readme_is_the_plan_of_the_project() -> None:
    """The YAML that the README shows is in plans/multi_tenant.yaml, word by word."""
    plan = (ROOT / "plans" / "multi_tenant.yaml").read_text(encoding="utf-8")
    block = README.split("## A plan\n\n")[1].split("\n\n[plans/")[0]
    words = [" ".join(line.split("#")[0].split()) for line in block.splitlines()]
    known = {" ".join(line.split("#")[0].split()) for line in plan.splitlines()}
    assert [w for w in words if w and w != "stages:" and w not in known] == []


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    """Every figure of the README's table of measurements is in the benchmarks' pages, and the command that
    makes it exists.
    """
    pages = "".join(
        (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("benchmarks.md", "benchmarks-locks.md")
    )
    known = set(re.findall(r"[\d.,]*\d", pages))
    rows = re.findall(r"^\| (?!what|---)(.*) \| (.*) \| `make ([\w-]+)`", README, flags=re.MULTILINE)
    assert len(rows) == 4
    for what, measured, target in rows:
        figures = set(re.findall(r"[\d.,]*\d", f"{what} {measured}".replace("99th", "")))
        assert figures <= known, f"not measured: {figures - known}"
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_readme_stays_short() -> None:
    """A page that a person reads in five minutes; what is longer belongs into docs/."""
    assert len(README.split()) <= 1_200


def test_the_container_file_copies_what_exists() -> None:
    """The image builds from this tree: what it copies exists, and its entry point is
    a script of the package.
    """
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in allowed, f".dockerignore keeps {name} out of the image"
    assert 'ENTRYPOINT ["online-migrate"]' in text
    assert 'online-migrate = "online_migrate.cli:main"' in (ROOT / "pyproject.toml").read_text(
        encoding="utf-8"
    )
