"""Where a generated token goes when no terminal shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from online_migrate.cli.secret_file import default_directory, write_secret_file
from online_migrate.errors import UsageError
from tests.desk import Desk

THROUGH = ("--through", "tables")


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def shown_in_the_journal(desk: Desk) -> str:
    fields = desk.ask("SELECT fields::text FROM online_migrate.history WHERE event = 'secret_shown'")
    return str(json.loads(fields)["where"])


def test_the_token_is_written_below_the_state_directory(desk: Desk) -> None:
    """Not into the current directory, where git or a backup takes it: its path is printed and kept in the
    journal.
    """
    said = desk.call("run", *THROUGH)
    assert said.code == 0, said.all
    folder = desk.state / "online-migrate"
    path = folder / "multi_tenant.api_token.secret"
    assert (mode_of(folder), mode_of(path)) == (0o700, 0o600)
    assert f"written to {path} (mode 0600)" in said.err
    assert shown_in_the_journal(desk) == str(path)
    assert path.read_text().strip() not in said.all
    assert [p for p in desk.folder.iterdir() if p.suffix == ".secret"] == []


def test_the_directory_can_be_chosen(desk: Desk) -> None:
    """--secrets-dir is for a host whose home is not kept: a container, a CI job."""
    said = desk.call("run", *THROUGH, "--secrets-dir", "vault/tokens")
    assert said.code == 0, said.all
    path = desk.folder / "vault" / "tokens" / "multi_tenant.api_token.secret"
    assert (mode_of(path.parent), mode_of(path)) == (0o700, 0o600)
    assert str(path) in said.err
    assert shown_in_the_journal(desk) == str(path)
    assert not desk.state.exists()


def test_a_directory_that_cannot_be_used_stops_before_the_row_commits(desk: Desk) -> None:
    """A token that is not written anywhere is lost, so its row must not exist; the same command resumes
    elsewhere.
    """
    (desk.folder / "taken").write_text("a file")
    said = desk.call("run", *THROUGH, "--secrets-dir", "taken/below")
    assert said.code == 2
    assert "error: stage tables" in said.err or "cannot write a secret to" in said.err
    assert "--secrets-dir DIR" in said.err
    assert desk.ask("SELECT count(*) FROM bots") == 0
    assert desk.call("run", *THROUGH).code == 0
    assert desk.ask("SELECT count(*) FROM bots") == 1


def test_an_older_token_is_never_overwritten(tmp_path: Path) -> None:
    """It may be in use: the next one gets a number."""
    first, second, third = (write_secret_file(tmp_path / "s", "p.token", v) for v in ("a", "b", "c"))
    assert [p.name for p in (first, second, third)] == [
        "p.token.secret",
        "p.token.1.secret",
        "p.token.2.secret",
    ]
    assert [p.read_text() for p in (first, second, third)] == ["a\n", "b\n", "c\n"]


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """They could replace the file by their own."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(UsageError, match="other users can write") as refused:
        write_secret_file(shared, "p.token", "a")
    assert f"chmod 700 {shared}" in refused.value.remedy
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/var/state"}, Path("/var/state/online-migrate")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/online-migrate"),
        ({}, Path.home() / ".local/state/online-migrate"),
    ],
)
def test_the_state_directory_is_that_of_the_specification(environ: dict[str, str], expected: Path) -> None:
    """XDG Base Directory 0.8: a relative path is invalid and ignored."""
    assert default_directory(environ) == expected
