"""One vocabulary: what can happen is reported by logs, metrics and journal alike, or
left out for a reason.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from online_migrate import events as e
from online_migrate.observe.history import Summary
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.observe.terminal.logs import LogSink
from online_migrate.observe.words import describe
from tests.observe.made_runs import make_record, whole_run
from tests.observe.terminal.test_logs import lines

KINDS = {
    k.__name__
    for k in vars(e).values()
    if isinstance(k, type) and issubclass(k, e.Event) and k is not e.Event
}

NO_METRIC = {
    "Throughput": "made of batches by the journal's keeper; batches are counted one by one",
    "TablesMeasured": "made by the journal's keeper; the exporter reads sizes every few seconds itself",
    "CheckFound": "said before the run begins, to the operator who starts it",
    "SecretShown": "happens once a run; no figure says more than the log's line",
    "StopAsked": "happens once a run, and its end is a figure",
    "StatementExecuted": "lock windows, batches and steps are measured one by one; its text is no figure",
    "StepReopened": "written by `redo`, outside a run; the journal names who reopened the step",
    "PlanAccepted": "happens at most once a run, before its first step; the journal names who accepted it",
    "Note": "a sentence; a sentence is no figure",
}
"""events without a metric, each with its reason"""
NO_RECORD = {
    "BatchDone": "summed up as Throughput, a record a table every ten seconds",
    "LongStatement": "twice a second; its beginning and end are the step's",
    "Throughput": "what the keeper makes itself; another's would count rows twice",
    "TablesMeasured": "what the keeper makes itself, beside a run's beginning and end",
}
"""events that the journal does not keep, each with its reason"""
NEVER_EMITTED = {
    "Throughput": "made by the journal's keeper, for the journal only",
    "TablesMeasured": "made by the journal's keeper, for the journal only",
}
"""events that no sink is ever given"""


def made() -> dict[str, e.Event]:
    """One event of every kind that is emitted."""
    return {type(event).__name__: event for event in whole_run()}


def test_every_event_is_made_up_for_the_tests() -> None:
    """What a new kind of event looks like in logs, pages and metrics is seen before an operator sees it."""
    assert made().keys() == KINDS - NEVER_EMITTED.keys()


def test_every_event_is_counted_or_excused_by_name() -> None:
    """A new kind of event is either a figure, or there is a written reason why not."""
    counted = {kind.__name__ for kind in MetricsSink(plan="shop")._handlers}
    assert KINDS - counted == NO_METRIC.keys()


def test_every_event_is_kept_or_excused_by_name() -> None:
    """A report is made from the journal: what is not in there never happened."""
    kept = {name for name, event in made().items() if event in Summary().take(event, now=0)}
    assert KINDS - kept == NO_RECORD.keys()


@pytest.mark.parametrize("name", sorted(KINDS - NEVER_EMITTED.keys()))
def test_every_event_is_logged_under_its_one_name(name: str) -> None:
    """The same word leads from the log to the journal and to the sentence on a page."""
    event = made()[name]
    (line,) = lines("json", "debug", [event])
    assert json.loads(line)["event"] == event.name == make_record(event).event
    assert describe(event.name, make_record(event).fields) != event.name.replace("_", " ")


def test_where_something_happened_is_always_in_the_same_fields() -> None:
    """Who filters by run, plan, step and table finds all of it, whatever happened."""
    place: dict[str, Any] = {"stage": "fill", "step": "backfill bot_id", "table": "users"}
    started = e.RunStarted(plan="shop", run_id=7, resumed=False, steps_total=1, steps_done=0)
    batch = next(event for event in whole_run() if isinstance(event, e.BatchDone))
    _, line = lines("json", "debug", [started, batch])
    assert {"plan": "shop", "run": 7, **place}.items() <= json.loads(line).items()


def test_a_sink_that_is_told_something_new_goes_on() -> None:
    """A kind of event that a listener does not know is no reason to stop a migration."""

    class MoonRose(e.Event):
        __slots__ = ()

    for sink in (MetricsSink(plan="shop"), LogSink(plan="shop")):
        sink.emit(MoonRose())
    assert Summary().take(MoonRose(), now=0)
