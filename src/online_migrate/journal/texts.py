"""Texts as the journal stores them, in a database of any encoding."""

from __future__ import annotations

import json
from collections.abc import Mapping

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.encoding import storable


def to_json(value: object) -> str:
    """Without escapes: of a character beyond ASCII, jsonb takes an escape only where the encoding is UTF8."""
    return json.dumps(value, ensure_ascii=False)


def storable_params(connection: Connection, params: Mapping[str, object]) -> dict[str, object]:
    """Parameters of a statement, see :func:`storable`."""
    return {name: storable(connection, v) if type(v) is str else v for name, v in params.items()}
