"""What a database says of a plan: the tables of its sets, its steps, how far it has come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from online_migrate.discovery.reach import tables_referencing
from online_migrate.errors import PreflightFailed
from online_migrate.journal.records import RunRecord
from online_migrate.journal.schema import ensure_readable
from online_migrate.journal.states import RunState, StepState
from online_migrate.journal.store import Journal
from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import Change, CreatesTable, PlanEffects
from online_migrate.operations.registry import OPERATIONS, effects_of
from online_migrate.plan.expand import expand, listed_tables, partitions_of, root_in
from online_migrate.plan.model import Plan, Step, set_part
from online_migrate.postgres.catalog import Catalog, ConstraintInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.partitions import read_leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the database says of a plan: the tables of its sets, its steps, and a catalog to ask further."""

    plan: Plan
    catalog: Catalog
    sets: Mapping[str, tuple[str, ...]]
    """with the partitions, as they are now, of each partitioned table; see plan.expand.partitions_of"""
    found: Mapping[str, tuple[str, ...]]
    """of each set, the tables that the plan names by `also` only"""
    effects: PlanEffects
    """the steps, and what each changes"""
    journal: Journal | None
    run: RunRecord | None
    references: Mapping[str, str]
    done: frozenset[tuple[str, str, str]]
    """steps that the journal has as done"""

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.effects.steps

    @property
    def frozen(self) -> dict[str, tuple[str, ...]]:
        """What a run keeps: the plan's sets, and the partitions of the tables that its steps are about."""
        tables = {name for s in self.steps for name in (s.table, s.partition)}
        partitions = {partitions_of(root) for root in roots_of(self.sets, tables)}
        return {n: t for n, t in self.sets.items() if n in self.plan.table_sets or n in partitions}

    @property
    def open_changes(self) -> tuple[Change, ...]:
        """What the steps that are not done are to change, in order."""
        return tuple(c for c in self.effects.changes if c.step.key not in self.done)

    @property
    def run_id(self) -> int | None:
        return None if self.run is None else self.run.run_id

    @property
    def is_over(self) -> bool:
        """Is the plan's run at its end, with nothing left to do?"""
        return (
            self.run is not None
            and self.run.state is RunState.DONE
            and all(s.key in self.done for s in self.steps)
        )

    def place(self, step: Step) -> Place:
        return Place(
            plan=self.plan,
            step=step,
            catalog=self.catalog,
            references=self.references,
            journal=self.journal,
            run_id=self.run_id,
            effects=self.effects,
        )


def survey(plan: Plan, connection: Connection) -> Survey:
    """Resolve the table sets: as an open run has frozen them, else as the foreign keys lead now."""
    _ensure_usable(connection, plan.schema)
    catalog = Catalog(connection, plan.schema)
    now = resolve_sets(plan, catalog.foreign_keys())
    journal = Journal(connection) if ensure_readable(connection) else None
    run = None if journal is None else journal.read_run(plan.name)
    sets = now if journal is None or run is None else now | _frozen_sets(plan, journal, run)
    sets = {**sets, **leaves_now(connection, plan.schema)}
    found = {
        name: tuple(t for t in tables if t not in plan.table_sets[name].tables)
        for name, tables in sets.items()
        if name in plan.table_sets
    }
    run_id = None if run is None else run.run_id
    references = {} if journal is None or run_id is None else journal.read_references(run_id)
    records = () if journal is None or run_id is None else journal.read_steps(run_id)
    return Survey(
        plan=plan,
        catalog=catalog,
        sets=sets,
        found=found,
        effects=effects_of(plan, expand(plan, sets, OPERATIONS)),
        journal=journal,
        run=run,
        references=references,
        done=frozenset(r.key for r in records if r.state is StepState.DONE),
    )


def leaves_now(connection: Connection, schema: str) -> dict[str, tuple[str, ...]]:
    """The partitions with rows of each partitioned table, named as :func:`expand` wants them."""
    return {partitions_of(root): leaves for root, leaves in read_leaves(connection, schema).items()}


def roots_of(sets: Mapping[str, tuple[str, ...]], tables: Collection[str | None]) -> Iterator[str]:
    """The partitioned tables of ``sets`` that are among ``tables``, or have a partition there."""
    for name, leaves in sets.items():
        root = root_in(name)
        if root is not None and (root in tables or any(leaf in tables for leaf in leaves)):
            yield root


def _ensure_usable(connection: Connection, schema: str) -> None:
    """Without USAGE no table of the schema can be named; every other question would fail."""
    row = connection.execute(
        "SELECT has_schema_privilege(oid, 'USAGE'), quote_ident(current_user), quote_ident(nspname)"
        " FROM pg_namespace WHERE nspname = %s",
        [schema],
    ).fetchone()
    if row is not None and not row[0]:
        raise PreflightFailed(
            f"{row[1]} may not use schema {row[2]}", remedy=f"GRANT USAGE ON SCHEMA {row[2]} TO {row[1]}"
        )


def _frozen_sets(plan: Plan, journal: Journal, run: RunRecord) -> dict[str, tuple[str, ...]]:
    """The sets as the run fixed them; one that the plan now defines otherwise is resolved again."""
    parts = plan.parts()
    return {
        name: tables
        for name, tables in journal.read_tables(run.run_id).items()
        if name in plan.table_sets and run.parts.get(set_part(name)) == parts[set_part(name)]
    }


def resolve_sets(plan: Plan, foreign_keys: Iterable[ConstraintInfo]) -> dict[str, tuple[str, ...]]:
    """Each set with what its `also` finds.  Not by way of tables that the plan makes: once these exist, every
    table of the set refers to them, and what references such a table would seem to reach the root.
    """
    listed = effects_of(plan, expand(plan, listed_tables(plan), OPERATIONS))
    made = {c.effect.table for c in listed.changes if isinstance(c.effect, CreatesTable)}
    keys = tuple(
        k for k in foreign_keys if k.table not in made and k.ref_table not in made and not k.is_inherited
    )
    sets = {}
    for name, table_set in plan.table_sets.items():
        further: tuple[str, ...] = ()
        if table_set.also is not None:
            reached = tables_referencing(table_set.also.referencing, keys, plan.schema)
            skip = {*table_set.tables, *table_set.exclude, *made}
            further = tuple(t for t in reached if t not in skip)
        sets[name] = (*table_set.tables, *further)
    return sets
