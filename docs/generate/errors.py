"""Exit codes: from the tree of errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from docs.generate.markdown import first_paragraph, sentence, table
from online_migrate.errors import OnlineMigrateError

_DONE: Final = "The run is done, or it stopped where it was asked to stop."


def exit_codes(page: str) -> str:  # noqa: ARG001  # every maker is given its page
    """Each code with the errors that end in it, and what each means."""
    rows = [
        (str(error.exit_code), f"`{error.__name__}`", sentence(first_paragraph(error.__doc__)))
        for error in sorted(_tree(OnlineMigrateError), key=lambda e: e.exit_code)
    ]
    return table(("exit code", "error", "meaning"), [("0", "", _DONE), *rows])


def _tree(error: type[OnlineMigrateError]) -> Iterator[type[OnlineMigrateError]]:
    """The error and those below it, as far as ``errors`` defines them."""
    yield error
    for child in error.__subclasses__():
        if child.__module__ == OnlineMigrateError.__module__:
            yield from _tree(child)
