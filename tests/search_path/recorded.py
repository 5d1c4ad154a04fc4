"""The statements that our sessions send, as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from online_migrate.postgres import connection as connections
from tests.search_path.twins import Names, names_in


@contextmanager
def record_statements() -> Iterator[set[str]]:
    """Everything that is sent meanwhile by a session of ours, and by no other of this process."""
    sent: set[str] = set()
    execute = connections._OurCursor.execute

    def record(self: Any, query: Any, params: Any = None, **more: Any) -> Any:
        sent.add(_as_text(query, self))
        return execute(self, query, params, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections._OurCursor, "execute", record)
        yield sent


def names_of(sent: Iterable[str]) -> Names:
    """What recorded statements name without a schema."""
    return names_in(map(_without_placeholders, sent))


def _as_text(query: Any, cursor: Any) -> str:
    if isinstance(query, bytes):
        return query.decode()
    return query if isinstance(query, str) else query.as_string(cursor)


def _without_placeholders(text: str) -> str:
    return re.sub(r"%\(\w+\)s|%[sbt]", "NULL", text).replace("%%", "%")
