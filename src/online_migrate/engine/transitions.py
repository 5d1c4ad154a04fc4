"""What to do with a step, from what the journal remembers and what the catalog says.  Pure: one table."""

from __future__ import annotations

from enum import Enum

from online_migrate.journal.states import StepState
from online_migrate.operations.contract.state import State


class Action(Enum):
    SKIP = "skip"
    EXECUTE = "execute"
    RESUME = "resume"
    """execute what was begun before: the same call, reported to the operator as resumed"""
    ADOPT = "adopt"
    """the catalog already is what the step makes: record it in the journal, do nothing"""
    STOP = "stop"
    """an object of that name exists with another definition"""


_A = Action
TRANSITIONS: dict[tuple[StepState, State], Action] = {
    # Never begun by us.
    (StepState.PENDING, State.ABSENT): _A.EXECUTE,
    (
        StepState.PENDING,
        State.PARTIAL,
    ): _A.RESUME,  # a leftover, of an earlier run or of another session: execute() converges
    (StepState.PENDING, State.DONE): _A.ADOPT,
    (StepState.PENDING, State.CONFLICT): _A.STOP,
    # Begun; then the runner ended in the middle.
    (StepState.RUNNING, State.ABSENT): _A.RESUME,
    (StepState.RUNNING, State.PARTIAL): _A.RESUME,
    (
        StepState.RUNNING,
        State.DONE,
    ): _A.ADOPT,  # committed, but the runner ended before the journal heard of it
    (StepState.RUNNING, State.CONFLICT): _A.STOP,
    # Failed; the operator may have fixed the cause since.
    (StepState.FAILED, State.ABSENT): _A.RESUME,
    (StepState.FAILED, State.PARTIAL): _A.RESUME,
    (StepState.FAILED, State.DONE): _A.ADOPT,
    (StepState.FAILED, State.CONFLICT): _A.STOP,
    # Done, as the journal says.  Later steps may have changed what it made (drop_default after add_column),
    # so the catalog is not asked; `verify` reads the world again.
    (StepState.DONE, State.ABSENT): _A.SKIP,
    (StepState.DONE, State.PARTIAL): _A.SKIP,
    (StepState.DONE, State.DONE): _A.SKIP,
    (StepState.DONE, State.CONFLICT): _A.SKIP,
}


def decide_action(journal_state: StepState, catalog_state: State) -> Action:
    """The one place that decides."""
    return TRANSITIONS[journal_state, catalog_state]
