"""Which waits are open: followed from event to event, so that one that lasts is not forgotten beside busy tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.snapshot.views import Key, WaitView

_BEGIN: Final = frozenset({"wait_started", "wait_continues"})
_END_ALL: Final = frozenset({"run_started", "run_ended", "reconnected"})
"""whoever waited over a session that is lost has begun anew"""
_END_STEP: Final = frozenset({"step_started", "step_ended", "step_failed"})
EVENTS: Final = tuple(sorted(_BEGIN | _END_ALL | _END_STEP | {"wait_ended"}))
"""all that opens or closes a wait"""

Place = tuple[Key, str]
"""of a wait, with its kind"""
Open = Mapping[Place, WaitView]


def find_waits(history: Iterable[HistoryRecord]) -> tuple[WaitView, ...]:
    """Waits that began and have not ended; what an earlier runner waited for is over."""
    return tuple(follow({}, history).values())


def follow(before: Open, news: Iterable[HistoryRecord]) -> Open:
    """The waits that are open after these events, which come after those of ``before``."""
    waits = dict(before)
    for record in news:
        take(waits, record)
    return waits


def take(waits: dict[Place, WaitView], record: HistoryRecord) -> list[WaitView]:
    """Note what the event opens; returns the waits that it ended, which are open no more."""
    begins = record.event in _BEGIN
    if not begins and not waits:  # as it is mostly
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


def _view(record: HistoryRecord, key: Key, kind: str, known: WaitView | None) -> WaitView:
    since = record.at
    if record.event == "wait_continues":
        seconds = record.fields.get("seconds", 0)
        told = record.at - timedelta(seconds=seconds if isinstance(seconds, int | float) else 0)
        since = known.since if known is not None else told
    reason = str(record.fields.get("reason", ""))
    return WaitView(kind=kind, reason=reason, since=since, stage=key[0], step=key[1], table=key[2])
