"""What a command prints, without a database."""

from __future__ import annotations

from typing import Final

from click.testing import CliRunner

from docs.generate import ROOT
from online_migrate.cli import main

NO_DATABASE: Final = dict.fromkeys(("ONLINE_MIGRATE_DSN", "PGHOST", "PGDATABASE", "PGSERVICE", "PGPORT"))


def printed(page: str, lines: str, command: str, plan: str, *options: str) -> str:  # noqa: ARG001  # as every maker
    """The first ``lines`` lines of a command about a plan of the project."""
    result = CliRunner().invoke(main, [command, str(ROOT / plan), *options], env=NO_DATABASE)
    assert result.exit_code == 0, result.output
    shown = result.output.splitlines()[: int(lines)]
    return "\n".join(["```text", *shown, "```"])
