"""Many attempts: which boundaries are struck by which kind, and what has come of each; results are kept in a
file.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from random import Random
from time import monotonic

from tests.faults.attempt import Attempt, Outcome
from tests.faults.kinds import KINDS, Kind
from tests.faults.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignOptions:
    """What is to be tried."""

    kinds: tuple[str, ...]
    stages: tuple[str, ...]
    sample: int | None
    """boundaries for each kind, drawn over all stages; None: every one"""
    seed: int
    most: int
    """faults in one attempt"""
    minutes: float | None = None
    """no attempt begins later than this after the first; None: until all are done"""

    def of(self, kinds: tuple[str, ...]) -> CampaignOptions:
        return replace(self, kinds=kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Faults of one kind."""

    tried: int = 0
    equal: int = 0
    attempts: int = 0
    runs: int = 0
    """of the command; each attempt needs at least one"""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            tried=self.tried + other.tried,
            equal=self.equal + other.equal,
            attempts=self.attempts + other.attempts,
            runs=self.runs + other.runs,
        )


def tally_of(outcomes: Iterable[Outcome]) -> dict[str, Tally]:
    """By kind.  The faults of an attempt that did not end equal all count as not equal."""
    found: dict[str, Tally] = defaultdict(Tally)
    for outcome in outcomes:
        tried = len(outcome.struck)
        found[outcome.kind] += Tally(
            tried=tried,
            equal=tried if outcome.is_equal else 0,
            attempts=1,
            runs=sum(outcome.exits.values()),
        )
    return {name: found[name] for name in KINDS if name in found}


def draw(
    site: Site, options: CampaignOptions, done: Iterable[Outcome]
) -> Iterator[tuple[Kind, str, list[str]]]:
    """Kind, stage and boundaries, kind by kind within each stage; without those that were struck already."""
    struck = {(o.kind, boundary) for o in done for boundary in o.struck}
    for name in options.kinds:
        dice = Random(f"{options.seed} {name}")
        every = [(stage, boundary) for stage in options.stages for boundary in site.boundaries[stage]]
        chosen = every if options.sample is None else dice.sample(every, min(options.sample, len(every)))
        by_stage: dict[str, list[str]] = defaultdict(list)
        for stage, boundary in chosen:
            if (name, boundary) not in struck:
                by_stage[stage].append(boundary)
        for stage in options.stages:
            if by_stage[stage]:
                yield KINDS[name], stage, by_stage[stage]


def carry_out(
    site: Site,
    options: CampaignOptions,
    *,
    done: Sequence[Outcome] = (),
    keep: Callable[[Outcome], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Attempt after attempt until every drawn boundary was struck, or no run comes to those that are left, or
    the time is over.  The kinds take turns, so that a pass that ends early has tried them equally often.
    """
    outcomes: list[Outcome] = []
    ends_at = inf if options.minutes is None else monotonic() + 60 * options.minutes
    queues: dict[str, deque[_Task]] = defaultdict(deque)
    for kind, stage, boundaries in draw(site, options, done):
        queues[kind.name].append(_Task(kind=kind, stage=stage, left=set(boundaries)))
    while any(queues.values()):
        for queue in filter(None, queues.values()):
            if monotonic() > ends_at:
                say(f"{options.minutes:g} minutes are over")
                return outcomes
            task = queue.popleft()
            task.number += 1
            outcome = _attempt(site, task.kind, task.stage, task.left, task.number, options)
            if not outcome.struck and outcome.is_equal:
                say(f"{task.kind.name} {task.stage}: {len(task.left)} boundaries were not reached again")
                continue
            outcomes.append(outcome)
            keep(outcome)
            say(line_of(outcome))
            if outcome.struck and task.left:
                queue.append(task)
    return outcomes


@dataclass(slots=True, kw_only=True)
class _Task:
    """The boundaries of one stage that one kind has still to strike."""

    kind: Kind
    stage: str
    left: set[str]
    number: int = 0
    """of the last attempt"""


def _attempt(
    site: Site, kind: Kind, stage: str, left: set[str], number: int, options: CampaignOptions
) -> Outcome:
    attempt = Attempt(
        site=site,
        kind=kind,
        stage=stage,
        wanted=left,
        most=options.most,
        dice=Random(f"{options.seed} {kind.name} {stage} {number}"),
        log=site.folder / f"{kind.name}-{stage}-{number}.log",
    )
    outcome = attempt.run()
    if not outcome.is_equal:
        last = (
            "\n".join(attempt.log.read_text(errors="replace").splitlines()[-30:])
            if attempt.log.exists()
            else ""
        )
        statements = "\n".join(f"  {text}" for _, text in attempt.struck)
        print(f"{line_of(outcome)}\nstruck:\n{statements}\nthe runner said last:\n{last}", flush=True)
    attempt.log.unlink(missing_ok=True)
    return outcome


def line_of(outcome: Outcome) -> str:
    """For people."""
    exits = ", ".join(f"{count} × exit {code}" for code, count in sorted(outcome.exits.items()))
    end = "equal" if outcome.is_equal else f"NOT EQUAL: {'; '.join(outcome.differences)}"
    return (
        f"{outcome.kind} {outcome.stage}: {len(outcome.struck)} faults, {outcome.seconds:.1f} s, {exits}:"
        f" {end}"
    )


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Append it, so that a pass that is interrupted goes on from there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read_outcomes(path: Path) -> list[Outcome]:
    """All that were kept."""
    if not path.exists():
        return []
    records = (json.loads(line) for line in path.read_text().splitlines())
    return [
        Outcome(**{**r, "struck": tuple(r["struck"]), "differences": tuple(r["differences"])})
        for r in records
    ]


def exits_of(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How often each exit code was seen."""
    found: Counter[str] = Counter()
    for outcome in outcomes:
        found.update(outcome.exits)
    return found
