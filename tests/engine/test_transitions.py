"""What to do with a step, for every pair of what the journal remembers and what the catalog says."""

from __future__ import annotations

from itertools import product

import pytest

from online_migrate.engine.transitions import TRANSITIONS, Action, decide_action
from online_migrate.journal.states import StepState
from online_migrate.operations.contract.state import State
from tests.desk import Desk

JOURNAL = tuple(StepState)
pairs = pytest.mark.parametrize(("remembered", "found"), list(product(JOURNAL, State)))


def test_every_pair_has_its_action_and_no_other_pair_is_there() -> None:
    """No state of the world is left without an answer."""
    assert set(TRANSITIONS) == set(product(JOURNAL, State))


def test_the_journal_knows_no_other_state(desk: Desk) -> None:
    """The table of transitions and the journal's own check speak of the same states."""
    assert desk.call("run", "--through", "tables").code == 0
    definition = desk.ask(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'step_state_check'"
    )
    assert all(f"'{state}'" in definition for state in JOURNAL)
    assert definition.count("::text") == len(JOURNAL)


@pairs
def test_what_is_done_is_never_done_again(remembered: StepState, found: State) -> None:
    """Done in the journal: skipped, whatever later steps made of it.  Done in the catalog: written down, not
    repeated.
    """
    action = decide_action(remembered, found)
    assert (action is Action.SKIP) == (remembered is StepState.DONE)
    assert (action is Action.ADOPT) == (remembered is not StepState.DONE and found is State.DONE)


@pairs
def test_a_conflict_is_never_written_over(remembered: StepState, found: State) -> None:
    """Something of that name with another definition stops every step that is open."""
    action = decide_action(remembered, found)
    assert (action is Action.STOP) == (remembered is not StepState.DONE and found is State.CONFLICT)


@pairs
def test_what_was_begun_is_said_to_be_resumed(remembered: StepState, found: State) -> None:
    """The operator reads 'goes on' where the journal or the catalog shows a beginning, and 'begins' where
    neither does.
    """
    action = decide_action(remembered, found)
    assert (action is Action.EXECUTE) == (remembered is StepState.PENDING and found is State.ABSENT)
