"""The database's encoding: what it cannot store.

Our sessions speak UTF-8, and the server converts.  A database of encoding SQL_ASCII converts nothing and
keeps the bytes as they come (manual, chapter "Character Set Support").
"""

from __future__ import annotations

import codecs
from typing import Final

from online_migrate.postgres.connection import Connection

_PYTHON: Final = {"SQL_ASCII": "utf-8", "KOI8R": "koi8_r", "KOI8U": "koi8_u", "EUC_TW": "ascii"}


def server_encoding(connection: Connection) -> str:
    """As PostgreSQL spells it: ``UTF8``, ``LATIN1``."""
    return connection.info.parameter_status("server_encoding") or "UTF8"


def storable(connection: Connection, text: str) -> str:
    """The text with ``?`` for each character that the database cannot store: a note is kept, not refused."""
    name = server_encoding(connection)
    if name == "UTF8" or text.isascii():
        return text
    python = _PYTHON.get(name) or name.replace("WIN", "cp")
    try:
        codecs.lookup(python)
    except LookupError:
        python = "ascii"
    return text.encode(python, errors="replace").decode(python)
