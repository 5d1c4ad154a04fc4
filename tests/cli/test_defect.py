"""Exit code 1 is a defect of ours: its traceback is in a file of the user's own, and holds no secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from online_migrate.cli import status
from online_migrate.engine import runner
from tests.desk import TOKEN, Desk, open_desk, small_text

PASSWORD = "made-up-password"


def explode(*_: object, **__: object) -> None:
    raise KeyError(f"no such thing: {TOKEN} {PASSWORD}")


def read_traceback(desk: Desk) -> str:
    """The text of the only file in the state directory, which only its owner can read."""
    (path,) = (desk.state / "online-migrate").glob("traceback-*.txt")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text()


@pytest.mark.parametrize(("command", "where"), [("status", (status, "_read")), ("run", (runner, "check"))])
def test_a_defect_keeps_its_traceback(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, where: tuple[object, str]
) -> None:
    """The message names the file; the frames are in it, the plan's secret and the password are not."""
    monkeypatch.setattr(*where, explode)
    monkeypatch.chdir(tmp_path)
    with open_desk(database, tmp_path, small_text()) as desk:
        desk.environ["PGPASSWORD"] = PASSWORD
        said = desk.call(command)
        text = read_traceback(desk)
    assert said.code == 1
    assert "a defect of online-migrate: KeyError" in said.err
    assert "traceback-" in said.err
    assert "in explode" in text
    for shown in (text, said.all):
        assert "no such thing" in shown
        assert TOKEN not in shown
        assert PASSWORD not in shown


def test_without_a_place_for_the_file_the_traceback_is_printed(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only home loses no traceback."""
    monkeypatch.setattr(status, "_read", explode)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").write_text("a file, not a directory")
    with open_desk(database, tmp_path, small_text()) as desk:
        said = desk.call("status")
    assert said.code == 1
    assert "in explode" in said.err
    assert TOKEN not in said.err
