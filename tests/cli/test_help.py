"""What a newcomer finds by asking."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from online_migrate import errors
from online_migrate.cli import main

COMMANDS = sorted(main.commands)


def help_of(*words: str) -> str:
    result = CliRunner().invoke(main, [*words, "--help"], prog_name="online-migrate", terminal_width=100)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_its_help(name: str) -> None:
    """No option is left to be guessed."""
    command = main.commands[name]
    assert command.help
    options = [p for p in command.params if isinstance(p, click.Option)]
    explained = {"format_"}  # its choices say it
    assert [o.name for o in options if not o.help and o.name not in explained] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_parses(name: str) -> None:
    """Operators copy the example before they read the options: it must be a call that the command accepts."""
    examples = re.findall(rf"^    online-migrate {name}\b ?(.*)$", help_of(name), re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.partition(">")[0])
        parent = click.Context(main, **main.context_settings)
        assert main.commands[name].make_context(name, words, parent=parent).info_name == name


def test_the_list_of_commands_says_what_each_does() -> None:
    """The group's help imports no command, so its texts are kept beside it: none may be missing or empty."""
    listed = dict(re.findall(r"^  (\w+) {2,}(\S.*)$", help_of().partition("Commands:")[2], re.MULTILINE))
    assert sorted(listed) == COMMANDS
    assert all(text.endswith(".") for text in listed.values())


def test_the_help_is_quick() -> None:
    """`--help` imports neither psycopg nor an operation: 0.1 s of CPU instead of 0.8 s."""
    code = (
        "import sys; from click.testing import CliRunner; from online_migrate.cli import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "print([m for m in sys.modules if m.split('.')[0] in {'psycopg', 'pydantic', 'postgast', 'rich'}])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_exit_codes_are_in_the_help() -> None:
    """An operator who configures a supervisor finds every code of the error tree."""
    text = help_of()
    codes = {
        e.exit_code
        for e in vars(errors).values()
        if isinstance(e, type) and issubclass(e, errors.OnlineMigrateError)
    }
    for code in codes:
        assert re.search(rf"(^|\s){code}\s+\w", text), code


def test_the_schema_that_is_printed_is_the_one_that_is_published() -> None:
    """docs/plan.schema.json is the output of `online-migrate schema`."""
    result = CliRunner().invoke(main, ["schema"])
    assert result.output == (Path(__file__).parents[2] / "docs" / "plan.schema.json").read_text()


def test_the_console_script_and_the_module_are_the_same() -> None:
    """Both ways to call it, in a process of its own, with the version and the exit code of a wrong call."""
    script = Path(sys.executable).parent / "online-migrate"
    for call in ([str(script)], [sys.executable, "-m", "online_migrate.cli"]):
        said = subprocess.run([*call, "--version"], capture_output=True, text=True, check=False)
        assert said.stdout.startswith("online-migrate, version ")
    said = subprocess.run([str(script), "run"], capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "Missing argument 'PLAN'" in said.stderr


@pytest.mark.parametrize(
    "name", ["", *(name for name in COMMANDS if name not in {"demo", "history", "runs", "schema"})]
)
def test_a_command_without_arguments_says_what_it_takes(name: str) -> None:
    """The first thing that a newcomer types: usage, never a traceback."""
    result = CliRunner().invoke(
        main, [name] if name else [], prog_name="online-migrate", env={"COLUMNS": "100"}
    )
    assert result.exit_code == 2
    assert "Usage: online-migrate" in result.output
