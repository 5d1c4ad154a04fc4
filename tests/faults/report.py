"""docs/reliability.md: what was tried, when, where, under which load, and how it ended."""

from __future__ import annotations

import os
import platform
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tests.faults.attempt import Outcome
from tests.faults.campaign import Tally, exits_of, tally_of
from tests.faults.kinds import KINDS

_TEXT = """\
# Reliability

`make faults` wrote this page. It runs the whole plan `plans/multi_tenant.yaml` on a small shop, strikes it
with a fault at the boundary of a statement, and compares where it ends with an undisturbed run: the schema as
a dump, a digest of the rows of each table, and the state of each step and stage in the journal.

A boundary is a statement in its place: its stage, step, session and parameters, and the statement before it.
The plan has {total:,} of them, those of `check`, the heartbeat and the metrics included. Each is struck at
most once by each kind of fault. One attempt is one stage, from a copy of the database as it is before that
stage; up to {most} faults strike it. If an attempt does not end equal, all its faults count as not equal.

{conditions}

| fault | what happens at the boundary | boundaries tried | ended equal | attempts | runs of the command |
| --- | --- | --- | --- | --- | --- |
{rows}

A run of the command that loses its connection reconnects and continues. It ends, to be run again, if it was
killed (exit -9), lost the server before it began (8), lost the lease to another runner (6), could not acquire
a lock (4), found the database not ready, or had a statement refused (3), or if the server's disk was full
(9). The [exit codes](exit-codes.md) say what to do.

Exit codes seen: {exits}.
{not_tried}{not_equal}
## Repeat it

    make faults                                                  # every boundary, every kind: many hours
    make faults ARGS="--kinds answer,kill --stages backfill"     # less of it
    make faults ARGS="--boundaries 60 --minutes 15"              # 60 for each kind, as far as the time allows
    make faults ARGS="--boundaries 40 --seed 7 --most 1"         # 40 for each kind, each by itself

A pass that is interrupted continues where it was; `--fresh` starts again. `make test` strikes a sample
(`tests/faults/test_sample.py`).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """When, where and how a pass was made."""

    began: datetime
    load: float
    command: str
    version: str = ""
    total: int = 0
    not_tried: str = ""

    @classmethod
    def read(cls, arguments: Sequence[str]) -> Self:
        """As it is now."""
        shown = [
            a
            for a, before in zip(arguments, ("", *arguments), strict=False)
            if "--results" not in (a, before)
        ]
        given = f' ARGS="{shlex.join(shown)}"' if shown else ""
        return cls(began=datetime.now(UTC), load=os.getloadavg()[0], command=f"make faults{given}")

    def on(self, server: tuple[str, int]) -> Self:
        version, total = server
        return replace(self, version=version, total=total)

    def without(self, reason: str) -> Self:
        return replace(self, not_tried=reason)

    def __str__(self) -> str:
        ended = datetime.now(UTC)
        text = (
            f"Last pass: {self.began:%Y-%m-%d %H:%M} to {ended:%H:%M} UTC, PostgreSQL {self.version},"
            f" {os.cpu_count()} cores"
            f" ({platform.machine()}), Python {platform.python_version()}; load {self.load:.1f} at its"
            " beginning,"
            f" {os.getloadavg()[0]:.1f} at its end. Command:\n"
        )
        return f"{textwrap.fill(text, 110)}\n\n    {self.command}"


def table_of(tallies: Mapping[str, Tally]) -> str:
    """For a terminal."""
    lines = [f"{'fault':<16}{'tried':>8}{'equal':>8}{'attempts':>10}{'runs':>8}"]
    for name, tally in tallies.items():
        lines.append(f"{name:<16}{tally.tried:>8}{tally.equal:>8}{tally.attempts:>10}{tally.runs:>8}")
    return "\n".join(lines)


def write_document(path: Path, outcomes: Sequence[Outcome], conditions: Conditions) -> None:
    """Write the page, of all results that are kept."""
    tallies = tally_of(outcomes)
    rows = "\n".join(
        f"| {name} | {KINDS[name].what} | {t.tried:,} | {t.equal:,} | {t.attempts:,} | {t.runs:,} |"
        for name, t in tallies.items()
    )
    failed = [o for o in outcomes if not o.is_equal]
    not_equal = "".join(f"\n- {o.kind}, stage {o.stage}: {'; '.join(o.differences)}" for o in failed)
    text = _TEXT.format(
        total=conditions.total,
        most=max((len(o.struck) for o in outcomes), default=0),
        conditions=conditions,
        rows=rows,
        exits=", ".join(f"{code} ({count:,} times)" for code, count in sorted(exits_of(outcomes).items())),
        not_tried=f"\nNot tried: {conditions.not_tried}.\n" if conditions.not_tried else "",
        not_equal=f"\nDid not end equal:\n{not_equal}\n" if failed else "",
    )
    path.write_text(text)
