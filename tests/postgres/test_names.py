"""Names within PostgreSQL's 63 bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from online_migrate.postgres.names import NAME_BYTES, fits, short_name


def test_a_name_that_fits_is_kept() -> None:
    """A reader finds the name that the plan says."""
    assert short_name("a" * NAME_BYTES) == "a" * NAME_BYTES
    assert short_name("bot_id", prefix="om_", suffix="_check") == "om_bot_id_check"


def test_cut_names_of_earlier_releases_are_found_again() -> None:
    """A run that an older program began finds the objects that it made."""
    assert short_name("ix_" + "a" * 70) == "ix_" + "a" * 51 + "_1179be77"


@given(st.text(min_size=1, max_size=120), st.text(min_size=1, max_size=120))
def test_two_names_stay_two_and_fit(one: str, other: str) -> None:
    """PostgreSQL never makes one name of two, whatever characters they have."""
    assert fits(short_name(one, prefix="om_", suffix="_ck"))
    assert one == other or short_name(one) != short_name(other)
