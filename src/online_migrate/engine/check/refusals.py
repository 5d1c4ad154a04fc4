"""What a refusal in the rehearsal means: the server's words, the fact behind them, and the remedy."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Place
from online_migrate.plan.model import Step

SHOWN: Final = 160
"""characters of a statement that a finding shows"""
_COPIES: Final = re.compile(r'"?online_migrate_rehearsal_\d+"?\.?')
_FUNCTION: Final = re.compile(r"PL/pgSQL function ([^\n]+?)(?: line \d+ at [^\n]+)?(?:\n|$)")
_CONTENT_FREE: Final = {"22001", "22003", "22012", "2200H"}
"""errors of data whose message quotes nothing of the row"""

_REMEDIES: Final = {
    "42501": "give the migrating role that right (GRANT), or change what asks for it",
    "54011": "the dropped columns count, too: only a new table (CREATE TABLE … AS, pg_dump) has room again",
    "54000": "shorten the values of these rows, or leave the column out of the index or the table",
    "23505": "merge or delete the rows with the same key",
    "23502": "give these rows a value in a step above",
    "23503": "add the missing rows to the parent, or correct the value",
    "23514": "correct the value, or the constraint",
    "2200H": "ALTER SEQUENCE … MAXVALUE, or give the key a larger type",
    "42804": "correct the type in the plan",
    "P0001": "disable or change the function that refuses it, or change the plan",
}
_UNDEFINED: Final = {"42703", "42704", "42P01", "42883", "55000", "OM005", "42830"}


def is_consequence(error: psycopg.Error) -> bool:
    """May it be refused only because a step before it was?"""
    return error.sqlstate in _UNDEFINED


def describe_refusal(
    error: psycopg.Error, *, place: Place | None, statement: str, is_certain: bool
) -> Finding:
    """A finding that stops; a warning where rows may change before the step, or only the copy is refused."""
    state = error.sqlstate or ""
    function = _FUNCTION.search(error.diag.context or "")
    by = f", in function {function.group(1)}" if function else ""
    said = f"{_said(error)} ({state}{by})"
    if place is None:
        fact = f"the rehearsal could not make its copies: {said}"
        severity = Severity.STOP if is_certain else Severity.WARN
        remedy = _remedy(state, is_by_function=bool(function))
        return Finding(severity=severity, code="not_rehearsed", fact=fact, remedy=remedy)
    is_data = state.startswith(("22", "23"))
    return Finding(
        severity=Severity.WARN if is_data and place.is_behind_a_gate else Severity.STOP,
        code="rehearsal_refused",
        fact=f"on a copy of {place.table} the server refuses {_shown(statement)}: {said}",
        remedy=_remedy(state, is_by_function=bool(function)),
        step=f"{place.step.stage}: {place.step.spec.title}",
        table=place.step.table or "",
    )


def rows_left(place: Place, column: str, rows: int) -> Finding:
    """A batch wrote rows, and they are not filled."""
    return Finding(
        severity=Severity.STOP,
        code="rows_left_by_batch",
        fact=f"on a copy of {place.table}, {rows} rows have no {column} after the batch: a trigger undoes it",
        remedy="correct the trigger, or add `triggers: skip` to the backfill",
        step=f"{place.step.stage}: {place.step.spec.title}",
        table=place.table,
    )


def not_rehearsed(table: str, reason: str, step: Step | None = None) -> Finding:
    """A table, or a step, that was not rehearsed, or not with all that it has."""
    return Finding(
        severity=Severity.INFO,
        code="not_rehearsed",
        fact=f"not rehearsed on the copy of {table}: {without_copies(reason)}",
        remedy="the first statement of the run will show it; nothing is left half done",
        step="" if step is None else f"{step.stage}: {step.spec.title}",
        table=table,
    )


def without_copies(text: str) -> str:
    """The names as the plan has them."""
    return _COPIES.sub("", text)


def _said(error: psycopg.Error) -> str:
    """The server's message without a row's content, which errors of data often quote."""
    state = error.sqlstate or ""
    if state.startswith("22") and state not in _CONTENT_FREE:
        return type(error).__name__
    said = error.diag.message_primary or str(error)
    if state == "42804" and error.diag.message_detail:
        said = f"{said}: {error.diag.message_detail}"
    return without_copies(said)


def _shown(statement: str) -> str:
    text = " ".join(without_copies(statement).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _remedy(state: str, *, is_by_function: bool) -> str:
    if is_by_function and state != "42501":
        return _REMEDIES["P0001"]
    return _REMEDIES.get(state, "correct the plan, or what the server names, then run `check` again")
