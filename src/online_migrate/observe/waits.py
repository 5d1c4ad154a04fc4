"""Which waits are open: followed from event to event, so that one that lasts is not forgotten beside busy tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from online_migrate.journal.records import HistoryRecord
from online_migrate.observe.views import Key, WaitView

BEGIN: Final = frozenset({"wait_started", "wait_goes_on"})
EVENTS: Final = (*sorted(BEGIN), "wait_ended", "step_ended", "step_failed", "run_started", "run_ended")
"""all that opens or closes a wait"""

Open = Mapping[tuple[Key, str], WaitView]
"""by place and kind"""


def find_waits(history: Iterable[HistoryRecord]) -> tuple[WaitView, ...]:
    """Waits that began and have not ended; what an earlier runner waited for is over."""
    return tuple(follow({}, history).values())


def follow(before: Open, news: Iterable[HistoryRecord]) -> Open:
    """The waits that are open after these events, which come after those of ``before``."""
    waits = dict(before)
    for record in news:
        begins = record.event in BEGIN
        if not begins and not waits:  # as it is mostly
            continue
        key, kind = (record.stage, record.step, record.table), str(record.fields.get("kind", ""))
        if begins:
            waits[key, kind] = _view(record, key, kind, waits.get((key, kind)))
        elif record.event in {"run_started", "run_ended"}:
            waits.clear()
        elif record.event in {"step_ended", "step_failed"}:
            waits = {place: wait for place, wait in waits.items() if place[0] != key}
        elif record.event == "wait_ended":
            waits.pop((key, kind), None)
    return waits


def _view(record: HistoryRecord, key: Key, kind: str, known: WaitView | None) -> WaitView:
    since = record.at
    if record.event == "wait_goes_on":
        seconds = record.fields.get("seconds", 0)
        told = record.at - timedelta(seconds=seconds if isinstance(seconds, int | float) else 0)
        since = known.since if known is not None else told
    reason = str(record.fields.get("reason", ""))
    return WaitView(kind=kind, reason=reason, since=since, stage=key[0], step=key[1], table=key[2])
