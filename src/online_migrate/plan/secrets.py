"""Reads the plan's secrets; their values are only used as bind parameters."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Mapping
from pathlib import Path

from online_migrate.errors import SecretMissing
from online_migrate.plan.model import SecretSource

SHORTEST = 4
"""characters of a value that is looked for in messages: a shorter one is no secret, and part of many words"""


class Secrets:
    """Reads secrets when they are asked for; a generated one is the same for the life of this object."""

    def __init__(self, sources: Mapping[str, SecretSource], environ: Mapping[str, str]) -> None:
        self._sources = sources
        self._environ = environ
        self._made: dict[str, str] = {}

    def missing(self) -> tuple[str, ...]:
        """What is not set, in words that name the variable or the file and never a value."""
        found = []
        for name, source in self._sources.items():
            if source.env is not None and not self._environ.get(source.env):
                found.append(f"secret {name}: environment variable {source.env} is not set")
            if source.file is not None and not _is_readable(Path(source.file)):
                found.append(f"secret {name}: file {source.file} does not exist, is empty, or cannot be read")
        return tuple(found)

    def value(self, name: str) -> str:
        """Raises :class:`SecretMissing` with the name."""
        source = self._sources[name]
        if source.generate is not None:
            return self._made.setdefault(name, randomness.token_urlsafe(source.length))
        missing = [m for m in self.missing() if m.startswith(f"secret {name}:")]
        if missing:
            raise SecretMissing(missing[0], remedy="set it, then run the same command again")
        return (
            self._environ[source.env]
            if source.env is not None
            else Path(str(source.file)).read_text(encoding="utf-8").strip()
        )

    def redact(self, text: str) -> str:
        """The text without any value of ours: a server may quote what it refuses (invalid input syntax …
        "value").
        """
        for name, source in self._sources.items():
            value = self._made.get(name, "") or self._peek(source)
            if len(value) >= SHORTEST:
                text = text.replace(value, f"<secret.{name}>")
        return text

    def _peek(self, source: SecretSource) -> str:
        """The value now, or nothing."""
        if source.env is not None:
            return self._environ.get(source.env, "")
        if source.file is not None and _is_readable(Path(source.file)):
            return Path(source.file).read_text(encoding="utf-8").strip()
        return ""


def _is_readable(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
