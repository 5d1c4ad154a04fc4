"""The pace of a run, changed by operators while it runs: the journal keeps it for the next runners, too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from online_migrate.journal.states import RequestKind
from online_migrate.journal.texts import to_json
from online_migrate.plan.model import Pace
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.encoding import storable

TUNES: Final = (
    "SELECT by_whom, about FROM online_migrate.request"  # noqa: S608  # a constant of ours
    f" WHERE plan = %(plan)s AND kind = '{RequestKind.TUNE}' ORDER BY request_id"
)
"""for :func:`to_tuning`"""
Changes = Mapping[str, Any]
"""keys of a plan's ``pace`` with values as a plan spells them"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What replaces the plan's pace; a table's own value has precedence over that of all tables."""

    tables: Mapping[str, Changes] = field(default_factory=dict)
    """by table; of all tables under the empty name"""
    by: str = ""
    """who changed it last"""

    def of(self, pace: Pace, table: str) -> Pace:
        """The pace of ``table``, where the plan says ``pace``.  Raises ValueError if its values contradict
        each other.
        """
        changes = {**self.tables.get("", {}), **self.tables.get(table, {})}
        return Pace.model_validate({**pace.model_dump(mode="json"), **changes}) if changes else pace

    def changed(self, table: str, changes: Changes, by: str) -> Tuning:
        """With these changes beside the earlier ones; without any, the plan's pace again: for all tables,
        or for the one that is named.
        """
        kept = self.tables if table or changes else {}
        own = {**kept.get(table, {}), **changes} if changes else {}
        tables = {**kept, table: own}
        return Tuning(tables={name: known for name, known in tables.items() if known}, by=by)

    def __str__(self) -> str:
        return "; ".join(
            f"{table or 'all tables'}: {', '.join(f'{key} {value}' for key, value in changes.items())}"
            for table, changes in sorted(self.tables.items())
        )


def to_tuning(rows: Iterable[Sequence[Any]]) -> Tuning:
    """What :data:`TUNES` selects."""
    tuning = Tuning()
    for by, about in rows:
        asked = json.loads(about)
        tuning = tuning.changed(asked["table"], asked["pace"], by)
    return tuning


def read_tuning(connection: Connection, *, plan: str) -> Tuning:
    """What all requests to tune the plan come to."""
    return to_tuning(connection.execute(TUNES, {"plan": plan}).fetchall())


def request_tune(connection: Connection, *, plan: str, table: str, changes: Changes, by: str) -> None:
    """Change the pace of ``table``, or of all tables if it is empty; see :meth:`Tuning.changed`."""
    connection.execute(
        "INSERT INTO online_migrate.request (plan, kind, by_whom, about) VALUES (%s, %s, %s, %s)",
        [
            plan,
            RequestKind.TUNE,
            storable(connection, by),
            storable(connection, to_json({"table": table, "pace": dict(changes)})),
        ],
    )


def take_tunes(connection: Connection, *, plan: str) -> None:
    """Note that the runner works at the pace that these requests say."""
    connection.execute(
        "UPDATE online_migrate.request SET taken_at = clock_timestamp()"
        " WHERE plan = %s AND kind = %s AND taken_at IS NULL",
        [plan, RequestKind.TUNE],
    )
