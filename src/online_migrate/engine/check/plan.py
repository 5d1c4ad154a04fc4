"""check: everything that is wrong, risky or open, at once.  Reads only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from online_migrate.discovery.reach import outside_tables_referencing
from online_migrate.discovery.star import read_isolation_settings, read_star_functions, read_star_statements
from online_migrate.engine.changed_steps import changed_step_findings
from online_migrate.engine.check.cascades import check_cascades
from online_migrate.engine.check.connections import check_connections
from online_migrate.engine.check.contradictions import find_contradictions, findings_of
from online_migrate.engine.check.encoding import check_encoding
from online_migrate.engine.check.limits import check_limits, list_event_triggers
from online_migrate.engine.check.owners import check_owners
from online_migrate.engine.check.references import check_references
from online_migrate.engine.check.rehearsal import rehearse
from online_migrate.engine.check.rights import check_rights
from online_migrate.engine.check.settings import check_settings
from online_migrate.engine.check.standbys import find_standbys
from online_migrate.engine.check.uniques import check_uniques
from online_migrate.engine.drift import find_drift
from online_migrate.engine.late_partitions import find_late_partitions
from online_migrate.engine.lock_retry import naming_blockers
from online_migrate.engine.survey import Survey, resolve_sets
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.effects import AddsColumn, CreatesTable
from online_migrate.operations.registry import OPERATIONS
from online_migrate.operations.shared.preflight import preflight
from online_migrate.plan.model import Step
from online_migrate.postgres.catalog import ConstraintInfo
from online_migrate.postgres.connection import version_text


def check(seen: Survey, *, missing_secrets: Iterable[str] = ()) -> list[Finding]:
    """Every finding, the worst first.  Raises :class:`LockNotAcquired` if a table cannot be read, with the
    session that locks it.
    """
    with naming_blockers(seen.catalog.connection, seen.plan.schema):
        return _check(seen, missing_secrets)


def _check(seen: Survey, missing_secrets: Iterable[str]) -> list[Finding]:
    seen.catalog.prefetch({s.table for s in seen.steps if s.table is not None})
    findings = [
        *_server(seen),
        *check_rights(seen),
        *check_settings(seen.catalog.connection),
        *check_encoding(seen.plan, seen.catalog.connection),
        *check_limits(seen),
        *check_connections(seen.plan, seen.catalog.connection),
        *find_standbys(seen.plan, seen.catalog.connection),
        *_secrets(missing_secrets),
    ]
    missing = [*_missing_tables(seen)]
    contradictions = find_contradictions(seen.effects, seen.catalog, done=seen.done)
    findings += check_references(seen)
    findings += missing
    findings += changed_step_findings(seen)
    findings += find_drift(seen)
    findings += find_late_partitions(seen)
    findings += findings_of(contradictions)
    keys = seen.catalog.foreign_keys()
    findings += _tables(seen, keys)
    findings += check_owners(seen, keys)
    findings += check_cascades(seen, keys)
    findings += check_uniques(seen)
    findings += _code(seen)
    no_tables = {f.table for f in missing}
    stopped = {c.step.key for c in contradictions if c.severity is Severity.STOP}
    for step in seen.steps:
        if step.key not in seen.done and step.key not in stopped and step.table not in no_tables:
            operation = OPERATIONS[step.spec.operation]
            found = preflight(operation, seen.place(step), step.spec.params)
            findings += [
                replace(f, step=f"{step.stage}: {step.spec.title}", table=step.key[2]) for f in found
            ]
    findings += list_event_triggers(seen)
    refused = {s.key for s in seen.steps if _is_refused(s, findings)}
    findings += rehearse(seen, stopped | refused)
    order = list(Severity)
    return sorted(_unique(findings), key=lambda f: order.index(f.severity))


def _is_refused(step: Step, findings: Iterable[Finding]) -> bool:
    """Is it known already that it cannot run?"""
    title = f"{step.stage}: {step.spec.title}"
    return any(f.severity is Severity.STOP and f.step == title and f.table == step.key[2] for f in findings)


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
        fact = (
            f"the server is PostgreSQL {version_text(version)}, the plan requires"
            f" {seen.plan.requires.postgres}"
        )
        yield Finding(
            severity=Severity.STOP,
            code="server_version",
            fact=fact,
            remedy="upgrade the server, or change `requires`",
        )


def _secrets(missing: Iterable[str]) -> Iterator[Finding]:
    for text in missing:
        yield Finding(
            severity=Severity.STOP,
            code="secret_missing",
            fact=text,
            remedy="set it in the environment of `run`; a plan contains no secrets",
        )


def _made(seen: Survey) -> set[str]:
    return {c.effect.table for c in seen.effects.changes if isinstance(c.effect, CreatesTable)}


def _missing_tables(seen: Survey) -> Iterator[Finding]:
    """Tables of the plan that do not exist."""
    made = _made(seen)
    wanted = {s.table for s in seen.steps if s.table is not None} - made
    wanted |= {ts.also.referencing for ts in seen.plan.table_sets.values() if ts.also is not None}
    missing = sorted(n for n in wanted if seen.catalog.table(n) is None)
    names = list(seen.catalog.all_tables()) if missing else []
    for name in missing:
        remedy = f"correct the plan, or create the table{_did_you_mean(name, names)}"
        if name in {t for tables in seen.sets.values() for t in tables} and seen.run_id is not None:
            remedy = (
                "it existed when the run started: restore it, or take it out of the plan and run with"
                " --accept-changed-plan"
            )
        yield Finding(
            severity=Severity.STOP,
            code="unknown_table",
            fact=f"table {seen.plan.schema}.{name} does not exist",
            remedy=remedy,
            table=name,
        )


def _did_you_mean(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _tables(seen: Survey, keys: tuple[ConstraintInfo, ...]) -> Iterator[Finding]:
    """What `also` found, and what references the set and is not in it."""
    made = _made(seen)
    for name, table_set in seen.plan.table_sets.items():
        found = seen.found.get(name, ())
        if table_set.also is not None and found:
            fact = (
                f"set {name}: {len(found)} more tables reach {table_set.also.referencing} by foreign"
                f" keys: {', '.join(found)}"
            )
            yield Finding(
                severity=Severity.INFO,
                code="also_found",
                fact=fact,
                remedy="they are part of the set; `exclude` leaves one out",
            )
        outside = {
            table: parents
            for table, parents in outside_tables_referencing(seen.sets[name], keys, seen.plan.schema).items()
            if table not in made
            and table not in table_set.exclude
            and not _is_partition_of(seen, table, name)
        }
        if outside:
            names = ", ".join(f"{table} (on {', '.join(parents)})" for table, parents in outside.items())
            verb = (
                "references it by a foreign key but is"
                if len(outside) == 1
                else "reference it by foreign keys but are"
            )
            yield Finding(
                severity=Severity.ASK,
                code="outside_set",
                fact=f"set {name}: {names} {verb} not in it",
                remedy="what belongs to the set must be listed under its `tables`",
            )
        later = sorted(set(resolve_sets(seen.plan, keys)[name]) - set(seen.sets[name]))
        if later:
            fact = f"set {name}: {', '.join(later)}: not part of it when the run started, so left out"
            yield Finding(
                severity=Severity.ASK,
                code="late_table",
                fact=fact,
                remedy="after this run, migrate it by a plan of its own",
            )


def _is_partition_of(seen: Survey, table: str, name: str) -> bool:
    """Does the set change the table along with its partitioned table, whose foreign keys it inherits?"""
    info = seen.catalog.table(table)
    names = () if info is None else [a for s, a in info.ancestors if s == seen.plan.schema]
    above = [seen.catalog.table(a) for a in names if a in seen.sets[name]]
    return any(a is not None and a.kind == "p" for a in above)


def _code(seen: Survey) -> Iterator[Finding]:
    """Code that a new column breaks."""
    adding = sorted({c.effect.table for c in seen.open_changes if isinstance(c.effect, AddsColumn)})
    if not adding:
        return
    connection = seen.catalog.connection
    for code in (*read_star_functions(connection, adding), *read_star_statements(connection, adding)):
        fact = f"{code.kind} {code.name} reads or writes every column" + (
            f" of {', '.join(code.tables)}" if code.tables else ""
        )
        yield Finding(
            severity=Severity.WARN,
            code="star",
            fact=fact,
            remedy="name the columns: a new one changes what `*` means",
        )
    fact = (
        f"a prepared SELECT * on {len(adding)} table{'s' * (len(adding) > 1)} fails once per session"
        " with 0A000 after ADD COLUMN, until it is prepared again"
    )
    yield Finding(
        severity=Severity.WARN,
        code="prepared_star",
        fact=fact,
        remedy="name the columns in the application's statements; we cannot see them from here",
    )
    for setting in read_isolation_settings(connection):
        fact = f"{setting}: its transactions get 40001 from rows that a batch has updated"
        yield Finding(
            severity=Severity.WARN,
            code="isolation",
            fact=fact,
            remedy="see that the application retries on 40001",
        )


def is_stopping(findings: Iterable[Finding]) -> bool:
    """Does one of them keep a run from beginning?"""
    return any(f.severity is Severity.STOP for f in findings)
