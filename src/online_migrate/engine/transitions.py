"""What to do with a step, from what the journal remembers and what the catalog says.  Pure: one table."""

from __future__ import annotations

from enum import Enum

from online_migrate.operations.contract.state import State


class Action(Enum):
    SKIP = "skip"
    EXECUTE = "execute"
    RESUME = "resume"
    """execute what was begun before; the same call, told to the operator by another word"""
    ADOPT = "adopt"
    """the catalog already is what the step makes: write it down, do nothing"""
    STOP = "stop"
    """something of that name is there with another definition"""


_A = Action
TRANSITIONS: dict[tuple[str, State], Action] = {
    # Never begun by us.
    ("pending", State.ABSENT): _A.EXECUTE,
    (
        "pending",
        State.PARTIAL,
    ): _A.RESUME,  # a leftover, ours from an earlier run or somebody's: execute() converges
    ("pending", State.DONE): _A.ADOPT,
    ("pending", State.CONFLICT): _A.STOP,
    # Begun; then the runner ended in the middle.
    ("running", State.ABSENT): _A.RESUME,
    ("running", State.PARTIAL): _A.RESUME,
    ("running", State.DONE): _A.ADOPT,  # committed, but the runner ended before the journal heard of it
    ("running", State.CONFLICT): _A.STOP,
    # Failed, and was mended by the operator since.
    ("failed", State.ABSENT): _A.RESUME,
    ("failed", State.PARTIAL): _A.RESUME,
    ("failed", State.DONE): _A.ADOPT,
    ("failed", State.CONFLICT): _A.STOP,
    # Done, as the journal says.  Later steps may have changed what it made (drop_default after add_column), so the catalog
    # is not asked; `verify` reads the world again.
    ("done", State.ABSENT): _A.SKIP,
    ("done", State.PARTIAL): _A.SKIP,
    ("done", State.DONE): _A.SKIP,
    ("done", State.CONFLICT): _A.SKIP,
}


def decide_action(journal_state: str, catalog_state: State) -> Action:
    """The one place that decides."""
    return TRANSITIONS[journal_state, catalog_state]
