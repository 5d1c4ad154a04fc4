"""The pacer: batches at their target time, within bounds, gentle under load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_migrate.backfill.pacer import CUT_PAST, LONGEST_PAUSE_S, STEP, Pacer, Pacing

TARGET_S = 0.05


def make_pacer(**changes: Any) -> Pacer:
    given = {"target_s": TARGET_S, "duty": 0.5, "min_rows": 50, "max_rows": 50_000, **changes}
    return Pacer(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server whose batches cost so much each and so much a row."""

    batch_s: float = 0.002
    row_s: float = 0.000025

    def seconds(self, rows: int) -> float:
        return self.batch_s + rows * self.row_s

    def run(self, pacer: Pacer, batches: int, noise: Sequence[float] = (1.0,)) -> list[Pacing]:
        return [
            pacer.decide(rows=pacer.rows, batch_s=self.seconds(pacer.rows) * noise[i % len(noise)])
            for i in range(batches)
        ]


batches = st.lists(
    st.fixed_dictionaries(
        {
            "batch_s": st.floats(min_value=0, max_value=100),
            "lock_wait_s": st.floats(min_value=0, max_value=100),
        },
        optional={"wal_bytes": st.integers(min_value=0, max_value=10**9)},
    ),
    max_size=60,
)


@given(batches=batches, start=st.integers(1, 10**6), least=st.integers(1, 500), more=st.integers(0, 10**5))
def test_a_batch_stays_within_its_bounds(
    batches: list[dict[str, Any]], start: int, least: int, more: int
) -> None:
    """Whatever is measured, a batch has never fewer rows than the floor, nor more than the ceiling."""
    pacer = make_pacer(start_rows=start, min_rows=least, max_rows=least + more)
    for batch in batches:
        pacing = pacer.decide(rows=pacer.rows, **batch)
        assert least <= pacing.rows <= least + more
        assert pacing.rows == pacer.rows
        assert 0 <= pacing.pause_s <= LONGEST_PAUSE_S


@given(batches=batches)
def test_it_never_grows_by_more_than_a_step(batches: list[dict[str, Any]]) -> None:
    """From one batch to the next no more than 1.5 times the rows: no measurement makes us jump."""
    pacer = make_pacer(min_rows=1)
    for batch in batches:
        before = pacer.rows
        assert pacer.decide(rows=before, **batch).rows <= (before + 1) * STEP


@given(times=st.floats(min_value=0, max_value=CUT_PAST))
def test_it_never_shrinks_by_more_than_a_step_below_the_cut(times: float) -> None:
    """A slow batch is answered step by step too, so that noise does not throw the size about."""
    pacer = make_pacer()
    before = pacer.rows
    assert pacer.decide(rows=before, batch_s=TARGET_S * times).rows >= int(before / STEP)


@given(times=st.floats(min_value=CUT_PAST * 1.001, max_value=1e6), start=st.integers(1000, 50_000))
def test_a_batch_far_over_its_target_is_cut_at_once(times: float, start: int) -> None:
    """Past five times the target the next batch is a tenth, not a step smaller."""
    pacer = make_pacer(start_rows=start)
    assert pacer.decide(rows=start, batch_s=TARGET_S * times).rows == int(start / 10)


def test_one_stall_cuts_once_and_no_further() -> None:
    """A single stall of a minute says nothing about a row's cost: from the tenth it grows again with the next
    batch.
    """
    server, pacer = Server(), make_pacer()
    server.run(pacer, 40)
    before = pacer.rows
    cut = pacer.decide(rows=before, batch_s=60.0)
    assert cut.rows == pytest.approx(before / 10, abs=1)
    sizes = [p.rows for p in server.run(pacer, 16)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(before, rel=0.1)


@given(waited=st.floats(min_value=0, max_value=30), batches=st.integers(1, 30))
def test_waiting_for_a_lock_is_not_work(waited: float, batches: int) -> None:
    """A batch that waited for an application's lock changes neither size nor pause: it was no slower at its
    work.
    """
    server, free, waiting = Server(), make_pacer(), make_pacer()
    for _ in range(batches):
        work_s = server.seconds(free.rows)
        one = free.decide(rows=free.rows, batch_s=work_s)
        other = waiting.decide(rows=waiting.rows, batch_s=work_s + waited, lock_wait_s=waited)
        assert other.rows == pytest.approx(one.rows, abs=1)
        assert other.pause_s == pytest.approx(one.pause_s)


@given(
    row_s=st.floats(min_value=2e-6, max_value=4e-4),
    batch_s=st.floats(min_value=0, max_value=0.02),
    start=st.integers(50, 50_000),
    seed=st.integers(0, 2**32),
)
def test_it_finds_the_target_on_a_noisy_server(row_s: float, batch_s: float, start: int, seed: int) -> None:
    """Within 40 batches from any start a batch costs its target, give or take the
    server's own noise of 30 %.
    """
    server, pacer = Server(batch_s=batch_s, row_s=row_s), make_pacer(start_rows=start)
    chance = random.Random(seed)
    noise = [chance.uniform(0.7, 1.3) for _ in range(60)]
    server.run(pacer, 40, noise)
    late = server.run(pacer, 20, noise[40:])
    mean_s = sum(server.seconds(p.rows) for p in late) / len(late)
    at_bounds = pacer.rows in {50, 50_000}
    assert at_bounds or mean_s == pytest.approx(TARGET_S, rel=0.25)


def test_it_shrinks_under_load_and_recovers() -> None:
    """A server that turns four times slower gets smaller batches of the same time, and larger ones again
    afterwards.
    """
    quiet, busy, pacer = Server(), Server(batch_s=0.008, row_s=0.0001), make_pacer()
    quiet.run(pacer, 40)
    before = pacer.rows
    busy.run(pacer, 40)
    assert pacer.rows < before / 3
    assert busy.seconds(pacer.rows) == pytest.approx(TARGET_S, rel=0.05)
    quiet.run(pacer, 40)
    assert pacer.rows == pytest.approx(before, rel=0.05)


COSTS_US = (10, 5, 5, 2.5, 5, 2.3, 7, 2.7, 2.5, 2.5, 9, 3, 3.5, 16, 2.3, 2.2)
"""of a row, stripe by stripe, as measured on a table whose rows grow by the column: the pages run out of room
together"""


def walk_stripes(pacer: Pacer, chance: random.Random, rows: int = 30_000, us: float = 1.0) -> list[float]:
    """The seconds of each batch of one chunk of so many rows a stripe."""
    took = []
    for stripe, cost in enumerate(COSTS_US):
        pacer.begin_stripe(stripe)
        left = rows
        while left > 0:
            part = min(pacer.rows, left)
            took.append((0.001 + part * cost * us * 1e-6) * chance.uniform(0.8, 1.2))
            pacer.decide(rows=part, batch_s=took[-1])
            left -= part
    return took


@given(seed=st.integers(0, 2**32), us=st.floats(min_value=1, max_value=3))
def test_a_stripe_of_dear_rows_after_cheap_ones_keeps_near_the_target(seed: int, us: float) -> None:
    """Rows cost up to seven times what they did a stripe before: never a batch past three targets, and none
    too timid.
    """
    chance, pacer = random.Random(seed), make_pacer()
    took = walk_stripes(pacer, chance, us=us)
    assert max(took) < 3 * TARGET_S
    took = [s for _ in range(4) for s in walk_stripes(pacer, chance, us=us)]
    assert max(took) < 2 * TARGET_S
    assert sorted(took)[len(took) // 2] > 0.3 * TARGET_S


def test_rows_as_dear_as_those_of_the_last_chunk_may_come_in_the_middle_of_a_stripe() -> None:
    """However cheap a stripe's rows are, a batch that meets the most expensive ones is not past three
    targets.
    """
    pacer = make_pacer()
    Server(batch_s=0, row_s=2e-5).run(pacer, 20)
    pacer.begin_stripe(1)
    cheap = Server(batch_s=0, row_s=2e-6).run(pacer, 30)
    assert cheap[-1].rows * 2e-5 == pytest.approx(3 * TARGET_S, rel=0.01)


def test_a_stripe_s_wal_is_learned_anew() -> None:
    """The first rows of a chunk write a full-page image each: what follows is not kept small for it, only
    begun so.
    """
    pacer = make_pacer(max_wal_bytes=1_000_000, start_rows=1_000)

    def run(row_wal_bytes: int, batches: int) -> list[int]:
        return [
            pacer.decide(
                rows=pacer.rows, batch_s=pacer.rows * 1e-6, wal_bytes=pacer.rows * row_wal_bytes
            ).rows
            for _ in range(batches)
        ]

    assert run(2_000, 20)[-1] == 500
    pacer.begin_stripe(1)
    assert pacer.rows == 500
    assert run(200, 4) == [750, 1125, 1687, 2531]
    pacer.begin_stripe(2)
    assert run(500, 1) == [2_000], "measured"
    pacer.begin_stripe(3)
    assert pacer.rows == 2_000, "as for the dearest of the others"
    pacer.begin_stripe(0)
    assert pacer.rows == 500, "what is known goes by itself"
    pacer.begin_stripe(1)
    assert pacer.rows == pytest.approx(5_000, abs=1)


def test_wal_is_to_be_measured_where_it_is_unknown_or_near_its_ceiling() -> None:
    """Measuring costs the server a twelfth of the batch."""
    pacer = make_pacer(max_wal_bytes=1_000_000, start_rows=500)
    wants = [pacer.wants_wal]
    pacer.decide(rows=500, batch_s=TARGET_S, wal_bytes=10_000)
    wants.append(pacer.wants_wal)
    pacer.begin_stripe(1)
    wants.append(pacer.wants_wal)
    pacer.decide(rows=500, batch_s=TARGET_S, wal_bytes=900_000)
    assert [*wants, pacer.wants_wal] == [True, False, True, True]


@given(batches=batches)
def test_the_same_measurements_give_the_same_pace(batches: list[dict[str, Any]]) -> None:
    """Pure: nothing but what was measured decides."""
    one, other = make_pacer(), make_pacer()
    assert [one.decide(rows=one.rows, **b) for b in batches] == [
        other.decide(rows=other.rows, **b) for b in batches
    ]


@pytest.mark.parametrize(
    ("duty", "pause_s"), [(1.0, 0.0), (0.5, 0.04), (0.25, 0.12), (0.001, LONGEST_PAUSE_S)]
)
def test_the_pause_follows_the_duty_cycle(duty: float, pause_s: float) -> None:
    """Of the time we take the share that the plan gives; the whole of it means no
    rest; no rest is endless.
    """
    assert make_pacer(duty=duty).decide(rows=500, batch_s=0.04).pause_s == pytest.approx(pause_s)


def test_a_batch_stays_within_its_wal() -> None:
    """Rows that write much WAL come in smaller batches at once, and a row that is all WAL still in the
    fewest.
    """
    pacer = make_pacer(max_wal_bytes=1_000_000, start_rows=10_000)
    assert pacer.decide(rows=10_000, batch_s=TARGET_S, wal_bytes=10_000_000).rows == 1_000
    assert pacer.decide(rows=1_000, batch_s=TARGET_S / 10, wal_bytes=1_000_000).rows == 1_000
    assert pacer.decide(rows=1_000, batch_s=TARGET_S / 10, wal_bytes=1_000_000_000).rows == 50


def test_a_short_slice_teaches_little() -> None:
    """The last slice of a chunk may hold a few rows: its fixed cost, spread over them, does not shrink what
    follows.
    """
    server, pacer = Server(), make_pacer()
    server.run(pacer, 40)
    before = pacer.rows
    pacer.decide(rows=10, batch_s=server.seconds(10))
    assert pacer.rows == pytest.approx(before, rel=0.02)
    assert pacer.decide(rows=0, batch_s=0.002) == Pacing(rows=pacer.rows, pause_s=0.002)


def test_an_operators_new_pace_counts_from_the_next_batch() -> None:
    """Tuned to half the target, the size follows, within the new bounds at once; what a row costs is not
    forgotten.
    """
    server, pacer = Server(batch_s=0.0), make_pacer()
    server.run(pacer, 40)
    pacer.retune(target_s=TARGET_S / 2, duty=1.0, min_rows=50, max_rows=1_500)
    assert pacer.rows == 1_500
    assert server.run(pacer, 10)[-1] == Pacing(rows=1_000, pause_s=0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_s": 0},
        {"duty": 0},
        {"duty": 1.1},
        {"min_rows": 0},
        {"min_rows": 10, "max_rows": 9},
        {"max_wal_bytes": 0},
    ],
)
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """A pace that could never be kept is an error where it is given, not an endless pause later."""
    with pytest.raises(ValueError, match=r"max_wal_bytes is 0|a pace needs"):
        make_pacer(**wrong)
