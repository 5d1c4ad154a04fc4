"""What the meters have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from online_migrate.events import Event
from online_migrate.observe.views import StepView

Handlers = dict[type[Event], Callable[[Any], None]]
"""what to do on which event"""
Now = Callable[[], float]
"""the time of day, in seconds since 1970"""


def step_of(event: Event | StepView) -> tuple[str, str]:
    """The labels stage and step."""
    return (event.stage, event.step)


def table_of(event: Event | StepView) -> tuple[str, str, str]:
    """The labels stage, step and table."""
    return (event.stage, event.step, event.table)
