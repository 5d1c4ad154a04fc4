"""What the catalog says of a step; pure, so that the engine's transitions can be."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """By definition and not by name."""

    ABSENT = "absent"
    PARTIAL = "partial"
    """begun, or in its way: execute() goes on from here"""
    DONE = "done"
    CONFLICT = "conflict"
    """something of that name is there with another definition: nothing may be run"""
