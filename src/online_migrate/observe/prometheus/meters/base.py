"""What the meters have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from online_migrate.events import Event
from online_migrate.observe.snapshot.views import Snapshot, StageView, StepView

Handlers = dict[type[Event], Callable[[Any], None]]
"""what to do on each event"""
Now = Callable[[], float]
"""the time of day, in seconds since 1970"""


class Changes:
    """Which stages and steps of a snapshot differ from the one before: few, from read to read."""

    def __init__(self) -> None:
        self._seen: dict[str, StageView] = {}

    def since_last(self, snapshot: Snapshot) -> Iterator[tuple[StageView, list[StepView]]]:
        """Stages with their changed steps; what has not changed is the same object
        (:func:`~online_migrate.observe.snapshot.read.read_snapshot`).
        """
        for stage in snapshot.stages:
            before = self._seen.get(stage.stage)
            if before is not stage:
                self._seen[stage.stage] = stage
                known = set(map(id, before.steps)) if before is not None else set[int]()
                yield stage, [step for step in stage.steps if id(step) not in known]


def step_of(event: Event | StepView) -> tuple[str, str]:
    """The labels stage and step."""
    return (event.stage, event.step)


def table_of(event: Event | StepView) -> tuple[str, str, str]:
    """The labels stage, step and table."""
    return (event.stage, event.step, event.table)
