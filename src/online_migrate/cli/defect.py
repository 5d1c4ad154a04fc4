"""A defect of ours, exit code 1: its traceback goes to a file that only the user can
read, without secrets.
"""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import psycopg

import online_migrate
from online_migrate.errors import Defect, OnlineMigrateError, UsageError

Redact = Callable[[str], str]
_META: Final = "online_migrate.redact"
_CHAINED: Final = "\nThe error above led to the following one.\n\n"


def redact_in_errors(redact: Redact) -> None:
    """From now on leave out of errors and tracebacks what ``redact`` leaves out; asked on the command's
    thread.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is not None:
        ctx.meta[_META] = (*ctx.meta.get(_META, ()), redact)


def without_secrets(ctx: click.Context, text: str) -> str:
    """The text without secrets of the plan and without the password of the database."""
    for redact in ctx.meta.get(_META, ()):
        text = redact(text)
    for password in filter(None, _passwords()):
        text = text.replace(password, "<password>")
    return text


def _passwords() -> Iterator[str]:
    yield os.environ.get("PGPASSWORD", "")
    for given in (os.environ.get("ONLINE_MIGRATE_DSN", ""), *sys.argv[1:]):
        with suppress(psycopg.Error):
            yield str(psycopg.conninfo.conninfo_to_dict(given.removeprefix("--dsn=")).get("password", ""))


def as_defect(error: BaseException) -> OnlineMigrateError:
    """An exception that no code of ours expects, in a sentence."""
    return Defect(f"a defect of online-migrate: {type(error).__name__}: {error}")


def keep_traceback(ctx: click.Context, error: OnlineMigrateError, caught: BaseException) -> None:
    """Write the traceback to a file and name it in the error's remedy; without a file it is the remedy."""
    from online_migrate.cli.secret_file import default_directory, write_private_file  # noqa: PLC0415

    text = without_secrets(ctx, describe_traceback(caught))
    at = datetime.now(UTC)
    try:
        directory = default_directory(os.environ)
        path = write_private_file(directory, f"traceback-{at:%Y%m%dT%H%M%SZ}", "txt", text)
    except (OSError, UsageError):
        error.remedy = f"please report this traceback:\n{text}"
        return
    error.remedy = _remedy(error.remedy, path)


def _remedy(remedy: str, path: Path) -> str:
    report = f"please report it with its traceback: {path}"
    return f"{report}; {remedy}" if remedy else f"{report}; the state is kept: the same command continues"


def describe_traceback(caught: BaseException) -> str:
    """The versions, and each exception of the chain with its frames, oldest first.

    No local variables.  Of a server's error only the primary message: DETAIL quotes rows.
    """
    versions = (
        f"online-migrate {online_migrate.__version__}, Python {platform.python_version()}, psycopg"
        f" {psycopg.__version__}"
    )
    return f"{versions}\n\n{_CHAINED.join(map(_describe, reversed(list(_chain(caught)))))}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _describe(error: BaseException) -> str:
    said = error.diag.message_primary if isinstance(error, psycopg.Error) and error.sqlstate else str(error)
    return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__}: {said}\n"
