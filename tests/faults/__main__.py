"""``make faults``: strike the plan at every statement boundary, once for each kind of fault, and write what
came of it.

A pass that is interrupted goes on where it was: results are kept in .venv/faults.jsonl until ``--fresh``.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from tests.faults.attempt import Outcome
from tests.faults.campaign import CampaignOptions, carry_out, exits_of, read_outcomes, tally_of, write_outcome
from tests.faults.kinds import KINDS
from tests.faults.report import Conditions, table_of, write_document
from tests.faults.site import STAGES, DiskUnavailable, start_site

ROOT = Path(__file__).parents[2]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of: " + ", ".join(KINDS))
    parser.add_argument("--stages", default=",".join(STAGES), help="of the plan, in its order")
    parser.add_argument("--boundaries", type=int, help="for each kind, drawn by --seed; else every one")
    parser.add_argument("--minutes", type=float, help="begin no attempt later; the kinds take turns")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=25, help="faults in one attempt; 1: each by itself")
    parser.add_argument("--results", type=Path, default=ROOT / ".venv" / "faults.jsonl")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier passes")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/reliability.md")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """0 where every fault tried ended equal."""
    given = parse(arguments)
    options = CampaignOptions(
        kinds=tuple(given.kinds.split(",")),
        stages=tuple(given.stages.split(",")),
        sample=given.boundaries,
        seed=given.seed,
        most=given.most,
        minutes=given.minutes,
    )
    if given.fresh:
        given.results.unlink(missing_ok=True)
    conditions = Conditions.read(arguments)
    on_disk = tuple(k for k in options.kinds if KINDS[k].needs_disk)
    others = tuple(k for k in options.kinds if k not in on_disk)
    if others:
        conditions = conditions.on(_carry_out(options.of(others), given.results, with_disk=False))
    if on_disk:
        try:
            conditions = conditions.on(_carry_out(options.of(on_disk), given.results, with_disk=True))
        except DiskUnavailable as error:
            conditions = conditions.without(f"{', '.join(on_disk)}: not tried, {error}")
            print(conditions.not_tried)
    outcomes = read_outcomes(given.results)
    print(table_of(tally_of(outcomes)))
    print("exit codes seen:", dict(exits_of(outcomes)))
    if not given.no_docs:
        write_document(ROOT / "docs" / "reliability.md", outcomes, conditions)
    return 0 if all(o.is_equal for o in outcomes) else 1


def _carry_out(options: CampaignOptions, results: Path, *, with_disk: bool) -> tuple[str, int]:
    """The server's version, and how many boundaries the plan has."""
    with start_site(with_disk=with_disk) as site:
        total = sum(len(b) for b in site.boundaries.values())
        print(f"PostgreSQL {site.primary.version}; {total:,} statement boundaries", flush=True)
        keep = partial(write_outcome, results)
        carry_out(site, options, done=read_outcomes(results), keep=keep, say=_say)
        return site.primary.version, total


def _say(line: str) -> None:
    print(line, flush=True)


__all__ = ["Outcome", "main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
