"""What the catalog says of a step; pure, so that the engine's transitions can be."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """By definition and not by name."""

    ABSENT = "absent"
    PARTIAL = "partial"
    """started and not finished: execute() continues from here"""
    DONE = "done"
    CONFLICT = "conflict"
    """an object of that name exists with another definition: nothing may be run"""
