"""Every operation keeps the contract of ``operations/base.py``, on a filled shop
that is written meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from online_migrate.operations.contract.base import Kind, Statement
from online_migrate.operations.contract.effects import CreatesTable, FillsColumn, MakesRow
from online_migrate.operations.contract.state import State
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Step
from online_migrate.postgres.locks import LockMode
from tests.operations.beside import (
    Eyes,
    Held,
    Writer,
    await_true,
    drops_held_back,
    from_the_side,
    is_waiting_for_snapshots,
    old_snapshot,
    read_relations,
)
from tests.operations.cases import CASES, Case
from tests.operations.catalog_difference import (
    columns_of,
    count_nulls,
    declared,
    observed,
    parents_of,
    read_facts,
    read_rows,
    without_new_tables,
)
from tests.operations.conftest import OpenSite
from tests.operations.driven import Cut, cut_off_after, locks_of, longest_window_s
from tests.operations.site import PLANS, Site, connect

HERE = Path(__file__).parent
NOISE_S = 0.25
"""what a statement may take by itself on a small machine that others use too; a naive ALTER stands for
seconds"""

all_cases = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
PARTIAL = [(c, name) for c in CASES for name in c.partial]
CONFLICT = [(c, name) for c in CASES for name in c.conflict]


@pytest.fixture
def begin(site_of: OpenSite) -> Callable[[Case], Site]:
    """Open a case's run with everything done that its step needs."""

    def open_(case: Case) -> Site:
        folder = HERE if case.operation == "verify_sql" else PLANS
        site = site_of(case.plan, folder=folder, environ=case.environ)
        site.sql(case.before or "SELECT 1")
        site.execute_all(before=step_of(site, case))
        return site

    return open_


def step_of(site: Site, case: Case) -> Step:
    return site.step(case.operation, case.table)


def test_every_operation_is_driven() -> None:
    """A new operation without a case is found by this test."""
    assert {case.operation for case in CASES} == set(OPERATIONS)


@all_cases
def test_absent_becomes_done_and_stays(case: Case, begin: Callable[[Case], Site]) -> None:
    """ABSENT, nothing against it → execute → DONE, verified; execute once more and not a line of the world
    differs.
    """
    site = begin(case)
    step = step_of(site, case)
    assert site.state(step) is State.ABSENT
    assert site.stops(step) == []
    site.execute(step)
    assert site.state(step) is case.ends_in
    assert site.verify(step) == []
    schema, rows = site.schema(), site.rows()
    site.execute(step)
    assert site.state(step) is case.ends_in
    assert (site.schema(), site.rows()) == (schema, rows)
    assert site.verify(step) == []


@pytest.mark.parametrize(("case", "name"), PARTIAL, ids=[f"{c.name}: {n}" for c, n in PARTIAL])
def test_partial_converges(case: Case, name: str, begin: Callable[[Case], Site]) -> None:
    """What a crash has left half is no conflict, and execute ends where it would have ended."""
    site = begin(case)
    step = step_of(site, case)
    state, made_half = case.partial[name]
    site.sql(made_half)
    assert site.state(step) is state
    assert site.stops(step) == []
    site.execute(step)
    assert site.state(step) is case.ends_in
    assert site.verify(step) == []


@all_cases
def test_cut_off_anywhere_it_converges(case: Case, begin: Callable[[Case], Site]) -> None:
    """The runner dies before its first statement, its second, third, fifth, eighth …: each time new sessions
    go on from what the catalog and the journal say, and the end is the same.
    """
    site = begin(case)
    step = step_of(site, case)
    cuts = 0
    for statements in (0, 1, 2, 4, 7, 12, 20, 33, 54):
        try:
            with cut_off_after(site, statements):
                site.execute(step)
            break
        except Cut:
            cuts += 1
            site.sessions.close()
            site.sessions.open()
    else:
        site.execute(step)
    assert cuts >= 1
    assert site.state(step) is case.ends_in
    assert site.verify(step) == []
    assert site.one("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert site.one("SELECT count(*) FROM pg_constraint WHERE conname LIKE 'online_migrate%'") == 0


@pytest.mark.parametrize(("case", "name"), CONFLICT, ids=[f"{c.name}: {n}" for c, n in CONFLICT])
def test_another_definition_is_a_conflict(case: Case, name: str, begin: Callable[[Case], Site]) -> None:
    """What already exists with another definition is named, with what to do about it, and nothing is
    touched.
    """
    site = begin(case)
    step = step_of(site, case)
    other, words = case.conflict[name]
    site.sql(other)
    before = site.schema()
    assert site.state(step) is State.CONFLICT
    findings = site.stops(step)
    assert any(words in f.fact for f in findings), findings
    assert all(f.remedy for f in findings)
    assert any(
        "conflict" in f.code for f in findings
    )  # so that the run ends with the exit code of a conflict
    assert site.schema() == before


@all_cases
def test_declared_locks_are_those_that_its_sql_takes(
    case: Case, begin: Callable[[Case], Site], shop: str
) -> None:
    """Each statement, run bare and without a LOCK TABLE of ours, takes just the locks that are declared for
    its window: none that is stronger, none on another relation, and none less.
    """
    site = begin(case)
    step = step_of(site, case)
    operation = site.operation(step)
    names = read_relations(site.app)
    statements = operation.statements(site.place(step), step.spec.params)
    for group in sorted({s.group for s in statements}):
        window = [s for s in statements if s.group == group and s.kind is not Kind.WRITE]
        declared = {n.relation: n.mode for s in window for n in s.locks}
        observed = (
            locks_of_concurrent(site, window[0], shop)
            if any("CONCURRENTLY" in s.text for s in window)
            else locks_of(site, window, names)
        )
        assert from_the_side(observed) == from_the_side(declared), f"window {group}"
        assert {n: observed[n] for n in declared} == declared


@all_cases
def test_declared_effects_are_what_the_catalog_shows(case: Case, begin: Callable[[Case], Site]) -> None:
    """The difference of the catalog before and after the step is what its effects declare, no more and no
    less; and no row differs but those that are declared to be filled or made.
    """
    site = begin(case)
    step = step_of(site, case)
    effects = site.operation(step).effects(site.place(step), step.spec.params)
    facts, rows = read_facts(site.app), read_rows(site.app, effects)
    site.execute(step)
    after = read_facts(site.app)
    assert without_new_tables(observed(facts, after), effects) == declared(
        effects, facts, site.place(step), site.app
    )
    assert read_rows(site.app, effects) == rows
    for effect in effects:
        if isinstance(effect, CreatesTable):
            assert columns_of(after, effect.table) == set(effect.columns)
            assert parents_of(after, effect.table) == set(effect.references)
        if isinstance(effect, FillsColumn):
            assert count_nulls(site.app, effect) == 0
        if isinstance(effect, MakesRow):
            assert site.one(f"SELECT count(*) FROM {effect.table}") == 1


def test_an_effect_that_is_not_declared_is_seen(begin: Callable[[Case], Site]) -> None:
    """The comparison bites: without its effect, a step's change of the catalog is a difference."""
    case = next(c for c in CASES if c.operation == "set_not_null")
    site = begin(case)
    facts = read_facts(site.app)
    site.execute(step_of(site, case))
    found = observed(facts, read_facts(site.app))
    assert found.gained == {("not null", "transactions", "bot_id")}
    assert found != declared((), facts, site.place(step_of(site, case)), site.app)


def locks_of_concurrent(site: Site, statement: Statement, dsn: str) -> Held:
    """What a second session sees of a build, or a drop, that an old snapshot holds up; then at the end of the
    drop.
    """
    with connect(dsn) as bare, ThreadPoolExecutor(1) as pool, Eyes(dsn, bare.info.backend_pid) as eyes:
        with drops_held_back(dsn) as is_drop_waiting:
            with old_snapshot(dsn, reads="transactions"):
                build = pool.submit(bare.execute, statement.sql)
                await_true(lambda: is_waiting_for_snapshots(site.app, bare.info.backend_pid))
                seen = eyes.samples
                await_true(lambda: eyes.samples > seen + 1)
            await_true(lambda: build.done() or is_drop_waiting())
            seen = eyes.samples
            await_true(lambda: eyes.samples > seen + 1)
        build.result()
    return eyes.held


@all_cases
def test_an_application_writes_on(case: Case, begin: Callable[[Case], Site], shop: str) -> None:
    """Seen from beside: no lock is held that was not declared, and no statement of the application waits for
    longer than the window that caused it, nor fails.
    """
    site = begin(case)
    step = step_of(site, case)
    declared = {n.relation: n.mode for n in site.operation(step).locks(site.place(step), step.spec.params)}
    with Writer(shop) as writer, Eyes(shop, site.work_pid) as eyes:
        site.execute(step)
        written = writer.count
        await_true(lambda: writer.count > written + 4 or writer.errors)
    assert writer.errors == []
    surplus = {n: m for n, m in eyes.held.items() if m > max(declared.get(n, LockMode.ROW_EXCLUSIVE), 3)}
    assert surplus == {}
    assert writer.longest_s < longest_window_s(site) + NOISE_S
