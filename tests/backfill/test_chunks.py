"""Where a backfill is and what comes next."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from online_migrate.backfill.chunks import Position, Slice, Walk, next_slice, share_done

WALKS = st.builds(
    Walk,
    pages_total=st.integers(0, 400),
    chunk_pages=st.integers(1, 150),
    stripes=st.integers(1, 8),
)
PACES = st.lists(st.integers(0, 200), min_size=1, max_size=30)


def walk_through(walk: Walk, paces: list[int], start: Position | None = None) -> list[Slice]:
    """Every batch of a pass whose batches have these sizes, over and over."""
    parts: list[Slice] = []
    position = start or Position()
    while (part := next_slice(walk, position, paces[len(parts) % len(paces)])) is not None:
        parts.append(part)
        position = part.then
    return parts


@given(walk=WALKS, paces=PACES)
def test_every_page_is_visited_exactly_once_in_every_stripe(walk: Walk, paces: list[int]) -> None:
    """Whatever the pacer says, no row is left out and none is walked twice."""
    visits = [(p, s.stripe) for s in walk_through(walk, paces) for p in range(s.first_page, s.end_page)]
    assert len(visits) == len(set(visits)) == walk.pages_total * walk.stripes
    assert {p for p, _ in visits} == set(range(walk.pages_total))


@given(walk=WALKS, paces=PACES)
def test_the_share_done_only_rises_from_none_to_all(walk: Walk, paces: list[int]) -> None:
    """Progress that is shown never goes back, and ends at one."""
    parts = walk_through(walk, paces)
    shares = [share_done(walk, Position()), *(share_done(walk, s.then) for s in parts)]
    assert all(0 <= a <= b <= 1 for a, b in pairwise([*shares, 1.0]))
    assert shares[-1] == 1.0
    assert not parts or shares[0] == 0.0


@given(walk=WALKS, paces=PACES, others=PACES, cut=st.integers(0, 10_000))
def test_a_pass_goes_on_from_every_position(
    walk: Walk, paces: list[int], others: list[int], cut: int
) -> None:
    """A crash after any batch, and another pace afterwards, leave no page out and visit none twice."""
    parts = walk_through(walk, paces)
    before = parts[: cut % (len(parts) + 1)]
    rest = walk_through(walk, others, before[-1].then if before else Position())
    visits = [(p, s.stripe) for s in before + rest for p in range(s.first_page, s.end_page)]
    assert sorted(visits) == sorted((p, s) for p in range(walk.pages_total) for s in range(walk.stripes))


@given(walk=WALKS, paces=PACES, lengths=st.lists(st.integers(1, 200), min_size=1, max_size=9))
def test_the_chunk_may_change_its_length_at_its_beginning(
    walk: Walk, paces: list[int], lengths: list[int]
) -> None:
    """A chunk that is lengthened for an old snapshot shifts no row to another stripe's turn."""
    visits: list[tuple[int, int]] = []
    position, batches = Position(), 0
    while True:
        if position.stripe == 0 and position.slice == position.chunk:
            walk = Walk(
                pages_total=walk.pages_total,
                chunk_pages=lengths[batches % len(lengths)],
                stripes=walk.stripes,
            )
        part = next_slice(walk, position, paces[batches % len(paces)])
        if part is None:
            break
        visits += [(p, part.stripe) for p in range(part.first_page, part.end_page)]
        position, batches = part.then, batches + 1
    assert sorted(visits) == sorted((p, s) for p in range(walk.pages_total) for s in range(walk.stripes))


def test_the_last_chunk_takes_a_small_rest_along() -> None:
    """A rest of a few pages walked alone would be visited again too soon for its dead rows to be pruned."""
    assert Walk(pages_total=1_040, chunk_pages=100, stripes=4).chunk_end(900) == 1_040
    assert Walk(pages_total=1_060, chunk_pages=100, stripes=4).chunk_end(900) == 1_000


def test_the_last_two_batches_of_a_stripe_are_of_one_size() -> None:
    """A batch of ten pages after one of a thousand would pay a transaction for them."""
    walk = Walk(pages_total=2_010, chunk_pages=5_000, stripes=1)
    assert [s.pages for s in walk_through(walk, [1_000])] == [1_000, 505, 505]


def test_no_pages_no_batch() -> None:
    """An empty table is done at once."""
    walk = Walk(pages_total=0, chunk_pages=100, stripes=4)
    assert next_slice(walk, Position(), 10) is None
    assert share_done(walk, Position()) == 1.0


def test_the_stripes_part_the_rows_of_a_page() -> None:
    """Every row of a page is in exactly one stripe's turn: the last one takes what is left."""
    walk = Walk(pages_total=1, chunk_pages=1, stripes=3)
    conditions = [s.condition.as_string(None) for s in walk_through(walk, [1])]
    assert [c.partition(" AND pg_catalog.get_byte")[2] for c in conditions] == [
        "(pg_catalog.tidsend(ctid), 5) OPERATOR(pg_catalog.%) 3 OPERATOR(pg_catalog.=) 0",
        "(pg_catalog.tidsend(ctid), 5) OPERATOR(pg_catalog.%) 3 OPERATOR(pg_catalog.=) 1",
        "",
    ]
