"""What a plan file alone offers to complete on the command line: stages, gates, steps, tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from online_migrate.errors import OnlineMigrateError
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.expand import listed_tables
from online_migrate.plan.load import load_file
from online_migrate.plan.model import Plan, Stage, StepSpec


def complete_stage(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Each stage with its phase."""
    return _items(incomplete, ((s.name, s.phase.value) for s in _stages(ctx)))


def complete_gate(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Each stage that has a gate, with what it asks."""
    gates = ((s.name, s.gate.approval) for s in _stages(ctx) if s.gate is not None)
    return _items(incomplete, gates)


def complete_step(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Each step's title with its stage; of one stage if the command line names it."""
    return _items(incomplete, ((spec.title, f"stage {stage.name}") for stage, spec in _steps(ctx)))


def complete_table(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Each table that the plan names."""
    plan = _plan(ctx)
    if plan is None:
        return []
    sets = listed_tables(plan)
    tables = list[str]()
    for _stage, spec in _steps(ctx):
        targets = OPERATIONS[spec.operation].targets(spec.params)
        tables += sets.get(targets, ()) if isinstance(targets, str) else (t for t in targets if t)
    return _items(incomplete, ((table, "") for table in tables))


def _items(incomplete: str, offered: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    """Each name once, in the plan's order; a shell takes one line for each."""
    given = {name: text for name, text in reversed(list(offered)) if name.startswith(incomplete)}
    return [CompletionItem(n, help=" ".join(text.split()) or None) for n, text in reversed(given.items())]


def _steps(ctx: click.Context) -> Iterator[tuple[Stage, StepSpec]]:
    only = ctx.params.get("stage")
    for stage in _stages(ctx):
        if only in (None, stage.name):
            yield from ((stage, spec) for spec in stage.steps)


def _stages(ctx: click.Context) -> tuple[Stage, ...]:
    plan = _plan(ctx)
    return () if plan is None else plan.stages


def _plan(ctx: click.Context) -> Plan | None:
    """The plan that the command line names; None while it names none, or one that has mistakes.

    Before the value of an option is typed, click has parsed no argument: the plan is the first word left.
    """
    path = ctx.params.get("plan") or next(iter(ctx.args), None)
    if path is None:
        return None
    try:
        return load_file(Path(path), OPERATIONS)
    except OnlineMigrateError:
        return None
