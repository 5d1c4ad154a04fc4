"""What the steps of an example change in the schema, as their operation declares it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum

from docs.generate.markdown import table
from online_migrate.engine.explain import Explanation
from online_migrate.operations.contract.effects import Effect
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.plan.expand import expand, listed_tables

_LEFT_OUT = {"table", "value", "has_all_columns"}
"""said by the first column, or by the parameters"""


def effects_table(explanation: Explanation, operation: str) -> str:
    """Every effect of the operation's steps; a sentence where it changes nothing."""
    plan = explanation.plan
    steps = expand(plan, listed_tables(plan), OPERATIONS)
    effects = effects_of(plan, steps)
    found = [e for step in steps if step.spec.operation == operation for e in effects.of(step)]
    if not found:
        return "It declares no change of the schema."
    rows = [(f"`{e.table}`", _verb(e), "; ".join(_details(e))) for e in dict.fromkeys(found)]
    return table(("table", "effect", "of what"), rows)


def _verb(effect: Effect) -> str:
    """``CreatesIndex`` → creates index."""
    return " ".join(re.findall(r"[A-Z][a-z]+", type(effect).__name__)).lower()


def _details(effect: Effect) -> Iterator[str]:
    for field in fields(effect):
        value = getattr(effect, field.name)
        if field.name in _LEFT_OUT or value in (False, "", (), frozenset(), 0.0):
            continue
        name = field.name.removeprefix("is_").removesuffix("_s").replace("_", " ")
        yield name if value is True else f"{name} {_text(value)}"


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"
