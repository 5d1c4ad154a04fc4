"""check: everything that is wrong, risky or open, at once.  Reads only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from online_migrate.discovery.reach import tables_hanging_on, tables_referencing
from online_migrate.discovery.star import read_isolation_settings, read_star_functions, read_star_statements
from online_migrate.engine.check_standbys import find_standbys
from online_migrate.journal.store import Journal, RunRecord, ensure_readable
from online_migrate.operations.add_column import AddColumnParams
from online_migrate.operations.base import Finding, Place, Severity
from online_migrate.operations.preflight import preflight
from online_migrate.operations.registry import OPERATIONS
from online_migrate.operations.swap_unique import SwapUniqueParams
from online_migrate.plan.expand import expand
from online_migrate.plan.model import Plan, Step, set_part
from online_migrate.postgres.catalog import Catalog, ConstraintInfo, TableInfo
from online_migrate.postgres.connection import Connection, version_text

_S = Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the database says of a plan: the tables of its sets, its steps, and a catalog to ask further."""

    plan: Plan
    catalog: Catalog
    sets: Mapping[str, tuple[str, ...]]
    found: Mapping[str, tuple[str, ...]]
    """of each set, the tables that stand in the plan by `also` only"""
    steps: tuple[Step, ...]
    journal: Journal | None
    run: RunRecord | None
    references: Mapping[str, str]
    done: frozenset[tuple[str, str, str]]
    """steps that the journal has as done"""

    @property
    def run_id(self) -> int | None:
        return None if self.run is None else self.run.run_id

    @property
    def is_over(self) -> bool:
        """Is the plan's run at its end, with nothing left to do?"""
        return (
            self.run is not None and self.run.state == "done" and all(s.key in self.done for s in self.steps)
        )

    def place(self, step: Step) -> Place:
        return Place(
            plan=self.plan,
            step=step,
            catalog=self.catalog,
            references=self.references,
            journal=self.journal,
            run_id=self.run_id,
            all_steps=self.steps,
        )


def survey(plan: Plan, connection: Connection) -> Survey:
    """Resolve the table sets: as an open run has frozen them, else as the foreign keys lead now."""
    catalog = Catalog(connection, plan.schema)
    now = resolve_sets(plan, catalog.foreign_keys())
    journal = Journal(connection) if ensure_readable(connection) else None
    run = None if journal is None else journal.read_run(plan.name)
    sets = now if journal is None or run is None else now | _frozen_sets(plan, journal, run)
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
        steps=expand(plan, sets, OPERATIONS),
        journal=journal,
        run=run,
        references=references,
        done=frozenset(r.key for r in records if r.state == "done"),
    )


def _frozen_sets(plan: Plan, journal: Journal, run: RunRecord) -> dict[str, tuple[str, ...]]:
    """The sets as the run fixed them; one that the plan now defines otherwise is resolved anew."""
    parts = plan.parts()
    return {
        name: tables
        for name, tables in journal.read_tables(run.run_id).items()
        if name in plan.table_sets and run.parts.get(set_part(name)) == parts[set_part(name)]
    }


def resolve_sets(plan: Plan, foreign_keys: Iterable[ConstraintInfo]) -> dict[str, tuple[str, ...]]:
    """Each set with what its `also` finds.  Not by way of tables that the plan makes: once these are there, every table
    of the set refers to them, and what hangs on such a table would seem to reach the root.
    """
    made = {
        t
        for stage in plan.stages
        for s in stage.steps
        if s.operation == "create_tables"
        for t in OPERATIONS[s.operation].targets(s.params) or ()
    }
    keys = tuple(k for k in foreign_keys if k.table not in made and k.ref_table not in made)
    sets = {}
    for name, table_set in plan.table_sets.items():
        further: tuple[str, ...] = ()
        if table_set.also is not None:
            reached = tables_referencing(table_set.also.referencing, keys, plan.schema)
            skip = {*table_set.tables, *table_set.exclude, *made}
            further = tuple(t for t in reached if t not in skip)
        sets[name] = (*table_set.tables, *further)
    return sets


def check(seen: Survey, *, missing_secrets: Iterable[str] = ()) -> list[Finding]:
    """Every finding, the worst first."""
    seen.catalog.prefetch({s.table for s in seen.steps if s.table is not None})
    findings = [
        *_server(seen),
        *_rights(seen),
        *find_standbys(seen.plan, seen.catalog.connection),
        *_secrets(missing_secrets),
    ]
    missing = [*_missing_tables(seen), *_missing_columns(seen)]
    findings += missing
    findings += _tables(seen)
    findings += _code(seen)
    blocked = {f.table for f in missing}
    for step in seen.steps:
        if step.key not in seen.done and step.table not in blocked:
            operation = OPERATIONS[step.spec.operation]
            found = preflight(operation, seen.place(step), step.spec.params)
            findings += [
                replace(f, step=f"{step.stage}: {step.spec.title}", table=step.table or "") for f in found
            ]
    order = list(Severity)
    return sorted(_unique(findings), key=lambda f: order.index(f.severity))


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    """What several steps have to say in the same words is said once, of the first of them."""
    first: dict[object, Finding] = {}
    for finding in findings:
        first.setdefault((finding.severity, finding.code, finding.fact), finding)
    return list(first.values())


def _server(seen: Survey) -> Iterator[Finding]:
    version = seen.catalog.connection.info.server_version
    wanted = seen.plan.requires.postgres.removeprefix(">=")
    major, _, minor = wanted.partition(".")
    if version < int(major) * 10000 + int(minor or 0):
        fact = f"the server is PostgreSQL {version_text(version)}, the plan requires {seen.plan.requires.postgres}"
        yield Finding(
            severity=_S.STOP,
            code="server_version",
            fact=fact,
            remedy="upgrade the server, or change `requires`",
        )


def _rights(seen: Survey) -> Iterator[Finding]:
    connection = seen.catalog.connection
    row = connection.execute(
        "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), has_database_privilege(current_database(), 'CREATE'),"
        " quote_ident(current_user), quote_ident(current_database()), has_schema_privilege(%s, 'CREATE'),"
        " pg_has_role(current_user, 'pg_signal_backend', 'USAGE')",
        [seen.plan.schema],
    ).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    sees, may_create, user, database, may_make_tables, may_signal = row
    if not sees:
        fact = f"{user} does not see other sessions: who is in the way of a lock, and how old snapshots are"
        yield Finding(severity=_S.STOP, code="blind", fact=fact, remedy=f"GRANT pg_read_all_stats TO {user}")
    if seen.plan.locks.end_blockers is not None and not may_signal:
        fact = f"{user} may not end other sessions, which locks.end_blockers asks for"
        remedy = f"GRANT pg_signal_backend TO {user}, or leave end_blockers out"
        yield Finding(severity=_S.STOP, code="signal_right", fact=fact, remedy=remedy)
    if seen.journal is None and not may_create:
        fact = f"{user} may not create the journal's schema online_migrate in {database}"
        yield Finding(
            severity=_S.STOP,
            code="journal_right",
            fact=fact,
            remedy=f"GRANT CREATE ON DATABASE {database} TO {user}",
        )
    if not may_make_tables:
        fact = f"{user} may not create tables and indexes in schema {seen.plan.schema}"
        yield Finding(
            severity=_S.STOP,
            code="schema_right",
            fact=fact,
            remedy=f"GRANT CREATE ON SCHEMA {seen.plan.schema} TO {user}",
        )
    tables = sorted({s.table for s in seen.steps if s.table is not None})
    owners = {t.owner: t for n in tables if (t := seen.catalog.table(n)) is not None}
    for owner, example in owners.items():
        row = connection.execute("SELECT pg_has_role(current_user, %s, 'USAGE')", [owner]).fetchone()
        if row is not None and not row[0]:
            fact = f"{user} may not alter tables of {owner}, e.g. {example.name}"
            yield Finding(severity=_S.STOP, code="owner_right", fact=fact, remedy=f"GRANT {owner} TO {user}")


def _secrets(missing: Iterable[str]) -> Iterator[Finding]:
    for text in missing:
        yield Finding(
            severity=_S.STOP,
            code="secret_missing",
            fact=text,
            remedy="set it in the environment of `run`; it stands in no plan",
        )


def _made(seen: Survey) -> set[str]:
    return {s.table for s in seen.steps if s.spec.operation == "create_tables" and s.table is not None}


def _missing_tables(seen: Survey) -> Iterator[Finding]:
    """Tables of the plan that are not there."""
    made = _made(seen)
    wanted = {s.table for s in seen.steps if s.table is not None} - made
    wanted |= {ts.also.referencing for ts in seen.plan.table_sets.values() if ts.also is not None}
    missing = sorted(n for n in wanted if seen.catalog.table(n) is None)
    names = list(seen.catalog.all_tables()) if missing else []
    for name in missing:
        remedy = f"correct the plan, or create the table{_did_you_mean(name, names)}"
        if name in {t for tables in seen.sets.values() for t in tables} and seen.run_id is not None:
            remedy = "it was there when the run began: restore it, or take it out of the plan and run with --accept-changed-plan"
        yield Finding(
            severity=_S.STOP,
            code="unknown_table",
            fact=f"table {seen.plan.schema}.{name} is not there",
            remedy=remedy,
            table=name,
        )


def _missing_columns(seen: Survey) -> Iterator[Finding]:
    """Columns that a step names and that neither are there nor are added by an earlier step."""
    added: dict[str, set[str]] = {}
    for step in seen.steps:
        table = seen.catalog.table(step.table) if step.table else None
        params = step.spec.params
        column = getattr(params, "column", None)
        if table is None or step.table is None:
            continue
        if step.spec.operation == "add_column":
            added.setdefault(step.table, set()).add(str(column))
            continue
        named = [
            *([column] if column else []),
            *getattr(params, "columns", []),
            *getattr(params, "from_", []),
        ]
        for name in named:
            if name not in table.columns and name not in added.get(step.table, set()):
                fact = f"{table.name} has no column {name}"
                remedy = f"correct {step.spec.where}{_did_you_mean(name, list(table.columns))}"
                yield Finding(
                    severity=_S.STOP, code="unknown_column", fact=fact, remedy=remedy, table=table.name
                )


def _did_you_mean(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _tables(seen: Survey) -> Iterator[Finding]:
    """What `also` found, and what hangs on the set and is not in it."""
    keys = seen.catalog.foreign_keys()
    made = _made(seen)
    for name, table_set in seen.plan.table_sets.items():
        found = seen.found.get(name, ())
        if table_set.also is not None and found:
            fact = f"set {name}: {len(found)} more tables reach {table_set.also.referencing} by foreign keys: {', '.join(found)}"
            yield Finding(
                severity=_S.INFO,
                code="also_found",
                fact=fact,
                remedy="they are part of the set; `exclude` leaves one out",
            )
        outside = {
            table: parents
            for table, parents in tables_hanging_on(seen.sets[name], keys, seen.plan.schema).items()
            if table not in made and table not in table_set.exclude
        }
        if outside:
            names = ", ".join(f"{table} (on {', '.join(parents)})" for table, parents in outside.items())
            verb = (
                "hangs on it by a foreign key but is"
                if len(outside) == 1
                else "hang on it by foreign keys but are"
            )
            yield Finding(
                severity=_S.ASK,
                code="hangs_on",
                fact=f"set {name}: {names} {verb} not in it",
                remedy="what belongs to the set must be listed under its `tables`",
            )
        later = sorted(set(resolve_sets(seen.plan, keys)[name]) - set(seen.sets[name]))
        if later:
            fact = f"set {name}: {', '.join(later)} came after the run had fixed the set, and is not in it"
            yield Finding(
                severity=_S.ASK, code="late_table", fact=fact, remedy="after this run, run a plan over it"
            )
        yield from _global_uniques(seen, seen.sets[name])


def _global_uniques(seen: Survey, tables: Iterable[str]) -> Iterator[Finding]:
    """Uniques that no swap_unique replaces: are they meant to be global?"""
    swapped = {
        (s.table, frozenset(s.spec.params.from_))
        for s in seen.steps
        if isinstance(s.spec.params, SwapUniqueParams)
    }
    owners = {s.spec.params.column for s in seen.steps if isinstance(s.spec.params, AddColumnParams)}
    lines: dict[str, None] = {}
    for name in tables if swapped else ():
        table = seen.catalog.table(name)
        for columns in () if table is None else _open_uniques(table, owners, set(tables)):
            if (name, frozenset(columns)) not in swapped:
                lines[f"{name}({', '.join(columns)})"] = None
    if lines:
        fact = f"uniques that stay global, so that two owners cannot share a value: {', '.join(lines)}"
        yield Finding(
            severity=_S.ASK,
            code="global_uniques",
            fact=fact,
            remedy="is each meant so? else build one per owner and swap it",
        )


def _open_uniques(table: TableInfo, owners: set[str], members: set[str]) -> Iterator[tuple[str, ...]]:
    """Uniques but the primary key, and but those that hold a key of the set's own rows: these are per owner anyway."""
    primary = {c.index_oid for c in table.constraints if c.kind == "p"}
    own_keys = {c for k in table.foreign_keys if k.ref_table in members for c in k.columns}
    for index in table.indexes:
        columns = tuple(str(c) for c in index.columns)
        if index.is_unique and index.oid not in primary and not {*own_keys, *owners} & set(columns):
            yield columns


def _code(seen: Survey) -> Iterator[Finding]:
    """Code that a new column breaks."""
    adding = sorted(
        {
            s.table
            for s in seen.steps
            if s.spec.operation == "add_column" and s.table and s.key not in seen.done
        }
    )
    if not adding:
        return
    connection = seen.catalog.connection
    for code in (*read_star_functions(connection, adding), *read_star_statements(connection, adding)):
        fact = f"{code.kind} {code.name} reads or writes every column" + (
            f" of {', '.join(code.tables)}" if code.tables else ""
        )
        yield Finding(
            severity=_S.WARN,
            code="star",
            fact=fact,
            remedy="name the columns: a new one changes what `*` means",
        )
    fact = f"a prepared SELECT * on {len(adding)} tables fails once per session with 0A000 after ADD COLUMN, until it is prepared anew"
    yield Finding(
        severity=_S.WARN,
        code="prepared_star",
        fact=fact,
        remedy="name the columns in the application's statements; we cannot see them from here",
    )
    for setting in read_isolation_settings(connection):
        fact = f"{setting}: its transactions get 40001 from rows that a batch has updated"
        yield Finding(
            severity=_S.WARN, code="isolation", fact=fact, remedy="see that the application retries on 40001"
        )


def is_stopping(findings: Iterable[Finding]) -> bool:
    """Does one of them keep a run from beginning?"""
    return any(f.severity is Severity.STOP for f in findings)
