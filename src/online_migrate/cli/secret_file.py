"""Writes files that only their owner can read, outside the current directory: secrets and tracebacks."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Final

from online_migrate.errors import UsageError

FOLDER: Final = "online-migrate"
REMEDY: Final = (
    "name a directory of your own, then run the same command again: online-migrate run PLAN --secrets-dir DIR"
)


def default_directory(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/online-migrate``, or ``~/.local/state/online-migrate`` where that variable is not
    set.

    A relative ``XDG_STATE_HOME`` is ignored, as the XDG Base Directory Specification 0.8 asks.  Raises
    :class:`UsageError` where the user has no home directory.
    """
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state / FOLDER
    try:
        return Path.home() / ".local" / "state" / FOLDER
    except RuntimeError as error:
        raise UsageError(f"no directory for generated secrets: {error}", remedy=REMEDY) from error


def write_secret_file(directory: Path, stem: str, value: str) -> Path:
    """A new file of mode 0600 in ``directory`` that holds ``value``, flushed to disk; returns its absolute
    path.

    A missing directory is created with mode 0700.  An existing file is never overwritten: its token may be in
    use, so the new file gets a number.  Raises :class:`UsageError` where the directory cannot be used.
    """
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(
                f"other users can write to {directory}, so a secret in it is not safe",
                remedy=f"chmod 700 {directory}, then run the same command again",
            )
        return write_private_file(directory, stem, "secret", f"{value}\n")
    except OSError as error:
        raise UsageError(f"cannot write a secret to {directory}: {error.strerror}", remedy=REMEDY) from error


def write_private_file(directory: Path, stem: str, suffix: str, text: str) -> Path:
    """A new file of mode 0600 that holds ``text``, flushed to disk; returns its path.

    A missing directory is created with mode 0700.  Raises :class:`OSError`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in count():
        path = directory / (f"{stem}.{number}.{suffix}" if number else f"{stem}.{suffix}")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _flush_directory(directory)
        return path
    raise AssertionError("count() does not end")


def _flush_directory(directory: Path) -> None:
    """Flush the new name too: the row commits after this, and the token must not be lost with the host."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
