"""Secrets: where they come from, and that they go nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from online_migrate.errors import SecretMissing
from online_migrate.plan.model import SecretSource
from online_migrate.plan.secrets import Secrets


def test_what_is_not_set_is_named_by_its_variable_or_file(tmp_path: Path) -> None:
    """An empty variable and an empty file count as not set; a generated secret needs nothing."""
    (tmp_path / "empty").write_text("\n")
    sources = {
        "one": SecretSource(env="ONE"),
        "two": SecretSource(file=str(tmp_path / "empty")),
        "three": SecretSource(generate="urlsafe"),
    }
    secrets = Secrets(sources, {"ONE": ""})
    assert secrets.missing() == (
        "secret one: environment variable ONE is not set",
        f"secret two: file {tmp_path / 'empty'} does not exist, is empty, or cannot be read",
    )
    with pytest.raises(SecretMissing, match="variable ONE is not set") as caught:
        secrets.value("one")
    assert caught.value.exit_code == 2
    assert secrets.value("three") == secrets.value("three")


def test_no_value_is_left_in_a_message(tmp_path: Path) -> None:
    """What the server quotes is replaced by the secret's name; what is too short to be a secret stays."""
    (tmp_path / "key").write_text("from-a-file\n")
    sources = {
        "one": SecretSource(env="ONE"),
        "two": SecretSource(file=str(tmp_path / "key")),
        "three": SecretSource(generate="urlsafe"),
        "four": SecretSource(env="FOUR"),
    }
    secrets = Secrets(sources, {"ONE": "from-the-environment", "FOUR": "a"})
    made = secrets.value("three")
    reported = secrets.redact(f"bad value: from-the-environment, from-a-file, {made}")
    assert reported == "bad value: <secret.one>, <secret.two>, <secret.three>"
