"""No operation calls a twin: each case of the operations' harness is driven where the plan's schema has twins
of everything that any of them names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import psycopg
import pytest
from psycopg import sql

from online_migrate.operations.registry import OPERATIONS
from tests.conftest import dropped_after
from tests.operations.cases import CASES, Case
from tests.operations.site import PLANS, open_site
from tests.search_path.recorded import names_of, record_statements
from tests.search_path.twins import Names, Twins
from tests.servers import TestServer

NewDatabase = Callable[[str | None], str]

AUTHORED = ("verify_sql",)
"""operations whose SQL is the plan's own: it finds its functions and operators by the path that role and
database have
"""
DRIVEN = tuple(c for c in CASES if c.operation not in AUTHORED)
STATES: tuple[tuple[Case, str], ...] = tuple((c, name) for c in DRIVEN for name in ("", *c.partial))
OWN_OPERATORS = ("multi_tenant.sql", "check: ")
"""what has operators of the plan's own, which would rightly be the twins where its schema comes first"""
FIRST = tuple((c, name) for c, name in STATES if not any(own in c.plan for own in OWN_OPERATORS))
"""what is driven where the plan's schema comes first"""


def drive(dsn: str, case: Case, half: str = "") -> None:
    """All that the engine asks of an operation: check, the declarations, the step itself, its proof; with
    ``half``, from what a crash left.
    """
    with open_site(dsn, case.plan, folder=PLANS, environ=case.environ) as site:
        site.app.execute("SET search_path = public")  # the application's path: pg_catalog comes first
        site.sql(case.before or "SELECT 1")
        step = site.step(case.operation, case.table)
        site.execute_all(before=step)
        if half:
            site.sql(case.partial[half][1])
        operation, place = site.operation(step), site.place(step)
        assert site.stops(step) == []
        operation.locks(place, step.spec.params)
        operation.statements(place, step.spec.params)
        site.contradictions()
        site.execute(step)
        assert site.state(step) is case.ends_in
        assert site.verify(step) == []


@pytest.fixture(scope="module")
def names(server: TestServer, new_database: NewDatabase, shop_template: str) -> Names:
    """What all statements of all operations name without a schema."""
    with record_statements() as sent:
        for case, half in STATES:
            with dropped_after(server, new_database(shop_template)) as dsn:
                drive(dsn, case, half)
    assert len(sent) > 100
    return names_of(sent)


@pytest.fixture(scope="module")
def twins_template(
    server: TestServer, new_database: NewDatabase, shop_template: str, names: Names
) -> Iterator[Callable[[bool], str]]:
    """The name of a shop with the twins of everything; also of the very same types, if asked."""
    with ExitStack() as stack:

        @cache
        def make(exact: bool) -> str:
            name = new_database(shop_template)
            dsn = stack.enter_context(dropped_after(server, name))
            with psycopg.connect(dsn, autocommit=True) as admin:
                twins = Twins(admin, "public", exact=exact)
                twins.make(names)
            assert twins.made > 300
            return name

        yield make


@pytest.mark.parametrize(
    ("case", "half", "is_first"),
    [
        pytest.param(c, n, first, id=f"{c.name} {n}".strip() + (", first" if first else ""))
        for first, states in ((False, STATES), (True, FIRST))
        for c, n in states
    ],
)
def test_an_operation_calls_no_twin(
    case: Case,
    half: str,
    is_first: bool,
    twins_template: Callable[[bool], str],
    server: TestServer,
    new_database: NewDatabase,
) -> None:
    """Each twin raises, so a step that called one would fail; the server's count says so too."""
    copy = new_database(twins_template(is_first))
    with dropped_after(server, copy) as dsn, psycopg.connect(dsn, autocommit=True) as admin:
        name = sql.Identifier(copy)
        admin.execute(sql.SQL("ALTER DATABASE {} SET track_functions = 'all'").format(name))
        if is_first:
            admin.execute(sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog").format(name))
        drive(dsn, case, half)
        assert Twins(admin, "public").called() == []


def test_every_operation_is_driven_or_said_to_be_the_plans_own() -> None:
    """A new operation is found by this test."""
    assert {case.operation for case in DRIVEN} | set(AUTHORED) == set(OPERATIONS)
