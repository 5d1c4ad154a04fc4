"""Which waits are open: followed from event to event, so that a long wait is not lost among the events of
busy tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from online_migrate.journal.changes import RunJournal
from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.snapshot.views import Key, WaitView

_BEGIN: Final = frozenset({"wait_started", "wait_continues"})
_END_ALL: Final = frozenset({"run_started", "run_ended", "reconnected"})
"""a wait over a session that was lost has restarted"""
_END_STEP: Final = frozenset({"step_started", "step_ended", "step_failed"})
EVENTS: Final = tuple(sorted(_BEGIN | _END_ALL | _END_STEP | {"wait_ended"}))
"""all events that open or close a wait"""

Place = tuple[Key, str]
"""of a wait, with its kind"""
Open = Mapping[Place, WaitView]


class OpenWaits:
    """The waits of one run that are open now, as one reader reads its journal again and again."""

    def __init__(self) -> None:
        self._open: Open = {}

    def follow(self, journal: RunJournal) -> tuple[WaitView, ...]:
        """The waits that are open after the journal's news."""
        self._open = follow({} if journal.is_first else self._open, journal.news)
        return tuple(self._open.values())


def follow(before: Open, news: Iterable[HistoryRecord]) -> Open:
    """The waits that are open after these events, which come after those of ``before``; a wait of an earlier
    runner has ended.
    """
    waits = dict(before)
    for record in news:
        take(waits, record)
    return waits


def take(waits: dict[Place, WaitView], record: HistoryRecord) -> list[WaitView]:
    """Add the wait that the event opens to ``waits``; remove and return the waits that it ends."""
    begins = record.event in _BEGIN
    if not begins and not waits:  # the usual case
        return []
    key, kind = (record.stage, record.step, record.table), str(record.fields.get("kind", ""))
    if begins:
        waits[key, kind] = _view(record, key, kind, waits.get((key, kind)))
        return []
    return [waits.pop(place) for place in _ended(record.event, key, kind, waits)]


def _ended(event: str, key: Key, kind: str, waits: Open) -> list[Place]:
    if event in _END_ALL:
        return list(waits)
    if event in _END_STEP:
        return [place for place in waits if place[0] == key]
    return [(key, kind)] if event == "wait_ended" and (key, kind) in waits else []


def _view(record: HistoryRecord, key: Key, kind: str, before: WaitView | None) -> WaitView:
    since = record.at
    if record.event == "wait_continues":
        seconds = record.fields.get("seconds", 0)
        began_at = record.at - timedelta(seconds=seconds if isinstance(seconds, int | float) else 0)
        since = before.since if before is not None else began_at
    reason = str(record.fields.get("reason", ""))
    return WaitView(kind=kind, reason=reason, since=since, stage=key[0], step=key[1], table=key[2])
