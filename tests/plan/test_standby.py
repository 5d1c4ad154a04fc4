"""How a plan may name a standby: never with a password."""

from __future__ import annotations

import pytest

from online_migrate.plan.standby import standby_problem


@pytest.mark.parametrize(
    "text",
    [
        "host=replica-1",
        "host=replica-1 port = 5433 options='-c x=\\'y\\''",
        "service=standby",
        "postgresql://replica-1",
        "postgresql://app@replica-1:5432,[::1]:5433/shop?sslmode=verify-full&application_name=a%40b",
        "postgres:///shop?host=/var/run/postgresql",
    ],
)
def test_without_a_password_any_form_is_taken(text: str) -> None:
    """Pairs and URIs, as libpq reads them."""
    assert standby_problem(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:geheim@replica-1/shop",
        "postgresql://app:ge%68eim@replica-1/shop",
        "postgresql://app:ge/heim@replica-1/shop",
        "postgresql://app:1/heim@replica-1/shop",
        "postgresql://replica-1/shop?pass%77ord=geheim",
        "postgresql://app:geheim",
        "host=replica-1 sslpassword=geheim",
        "host=replica-1 PASSWORD = geheim",
        "host=replica-1 geheim",
        "geheim",
        "",
    ],
)
def test_a_password_or_what_cannot_be_read_is_refused_and_not_quoted(text: str) -> None:
    """What cannot be read may hold a password anywhere."""
    problem = standby_problem(text)
    assert problem
    assert "heim" not in problem
