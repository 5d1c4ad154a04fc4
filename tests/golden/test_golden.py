"""The product's whole text in one place: a change of it is seen in review, and read as an operator reads it.

``make golden`` rewrites the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from online_migrate.cli import main
from online_migrate.observe.words import describe
from tests.desk import PLANS, WHOLE, Desk, open_desk, small_text
from tests.golden.source_texts import Text, finding_codes, read_errors, read_findings, read_mistakes
from tests.observe.made_runs import whole_run

HERE: Final = Path(__file__).parent
NORMALISED: Final = (
    (re.compile(r"om_test_\w+"), "DATABASE"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "HOST:PORT"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(?:[+-]\d\d:?\d\d| UTC|Z)?"), "TIME"),
    (re.compile(r"\b\w+@[\w.-]+, (?:pid|process) \d+"), "USER@HOST, process PID"),
    (re.compile(r"\bpid \d+"), "pid PID"),
    (re.compile(r"\b\d[\d.,]*(?: ?to \d[\d.,]*)?(?= (?:ms|s|min|h|B|kB|MB|GB|MiB|GiB)\b)"), "N"),
    (re.compile(r"\bN (?:ms|s)\b"), "N s"),
    (re.compile(r"(?:/[\w.-]+)+/(?=plan\.yaml|state/|[\w.]+\.secret)"), "FOLDER/"),
)
"""what differs from run to run"""


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with its file; with --write-golden write the file."""

    def compare(name: str, text: str) -> None:
        path = HERE / name
        text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).rstrip("\n") + "\n"
        if request.config.getoption("--write-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{name} is missing: make golden"
        assert text == path.read_text(encoding="utf-8"), "the text changed; if that is intended: make golden"

    return compare


def normalised(text: str) -> str:
    for pattern, replacement in NORMALISED:
        text = pattern.sub(replacement, text)
    return text


def listed(texts: Iterable[Text]) -> str:
    return "\n".join(map(str, texts))


def printed(*words: str, width: int = 100) -> str:
    environ = dict.fromkeys(("ONLINE_MIGRATE_DSN", "PGHOST", "PGDATABASE", "PGSERVICE", "PGPORT"))
    result = CliRunner(env=environ).invoke(main, words, prog_name="online-migrate", terminal_width=width)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_finding_is_listed(golden: Callable[[str, str], None]) -> None:
    """What check and a resumed run can say, by code: an operator can look every code up."""
    findings = read_findings()
    golden("findings.txt", listed(findings))
    assert finding_codes() <= {f.title.split()[-1] for f in findings}
    assert [f for f in findings if not f.message or not f.remedy] == []


def test_every_error_is_listed(golden: Callable[[str, str], None]) -> None:
    """Each has a message that says what happened; the remedy is in the same place, or in its class."""
    golden("errors.txt", listed(read_errors()))


def test_every_mistake_of_a_plan_is_listed(golden: Callable[[str, str], None]) -> None:
    """A plan's author sees these while nothing is at stake yet."""
    golden("mistakes.txt", listed(read_mistakes()))


def test_every_event_is_a_sentence(golden: Callable[[str, str], None]) -> None:
    """Logs, terminal, page and report say an event in the same words."""
    lines = [f"{e.name:<20} {describe(e.name, e.fields())}" for e in whole_run()]
    golden("events.txt", "\n".join(lines))


def test_the_help_of_every_command(golden: Callable[[str, str], None]) -> None:
    """The first text of all."""
    parts = [printed("--help"), *(printed(name, "--help") for name in main.commands)]
    text = "\n\n".join(parts)
    golden("help.txt", re.sub(r"\[default: \(?[\w.-]+@.*?\)?\]", "[default: USER@HOST]", text))


def test_the_plan_of_the_project_explained(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    """Every kind of step with its SQL and locks; over four tables, as the other 26 differ in their names
    only.
    """
    (tmp_path / "plan.yaml").write_text(small_text())
    ddl = (PLANS / "multi_tenant.sql").read_text(encoding="utf-8").partition("-- What a bot may do.")[0]
    (tmp_path / "bots.sql").write_text(ddl)
    golden("explain.txt", printed("explain", str(tmp_path / "plan.yaml")))


def test_the_locks_of_the_plan_of_the_project(golden: Callable[[str, str], None]) -> None:
    """What an administrator asks first."""
    golden("locks.txt", printed("locks", str(PLANS / "multi_tenant.yaml")))


def test_check_on_the_shop(
    shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    """The findings of the project's plan on its own database, as an operator sees them."""
    monkeypatch.chdir(tmp_path)
    with open_desk(shop, tmp_path, WHOLE) as desk:
        said = desk.call("check")
    assert said.code == 0, said.all
    golden("check.txt", normalised(said.all))


def test_status_of_a_stopped_run(
    shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    """In the middle of a plan: what is done, what is pending, and what comes next; for people and for
    programs.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    with open_desk(shop, tmp_path, small_text()) as desk:
        assert desk.call("run", "--through", "columns").code == 0
        golden("status.txt", normalised(desk.call("status").out))
        golden("status_json.txt", normalised(_without_history(desk)))


def _without_history(desk: Desk) -> str:
    """The history holds measured times in every line; events.txt has its sentences."""
    text = desk.call("status", "--json").out
    return re.sub(r'"history": \[.*?\n  \]', '"history": […]', text, flags=re.DOTALL)
