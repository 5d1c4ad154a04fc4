"""A trial: a database with something odd about it, a plan, and what the commands answer."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.desk import Desk, Said

PARENT_AND_TABLE: Final = """
    CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);
    CREATE TABLE t (id serial PRIMARY KEY, code text UNIQUE);
    INSERT INTO t (code) SELECT 'c' || g FROM generate_series(1, 500) g; ANALYZE;"""
COLUMN_ROWS_KEY: Final = (
    "add_column: {table: t, column: c, type: integer, new_rows: 1}",
    "backfill: {table: t, column: c, value: 1}",
    "add_foreign_key: {table: t, column: c, references: p.id}",
)
"""a column for ``t``, its rows, and a foreign key to ``p``"""

RUNS: Final = (0,)
STOPS: Final = (2, 3)
"""2 where the plan alone shows it, 3 where the database does"""
EITHER: Final = (0, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is odd, and what must follow from it.

    A role named ``om_role_x`` in ``setup`` or ``role`` is made for the test, under a name of its own;
    ``om_database`` in ``setup`` is the database.
    """

    name: str
    setup: str
    plan: str
    files: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    """who runs the commands; the tests' superuser where it is empty"""
    check: tuple[int, ...] = RUNS
    """the exit codes that check may end with"""
    says: tuple[str, ...] = ()
    """regular expressions, each found in what check prints"""
    stops_with: tuple[str, ...] = ()
    """the same, where check stops the run"""
    never: tuple[str, ...] = ()
    """regular expressions, none of them found in what check prints"""
    run: tuple[int, ...] | None = RUNS
    """the exit codes that a run may end with that check let pass; None: nothing is run"""
    after: Mapping[str, Any] = field(default_factory=dict)
    """query → its first column, after the run"""
    encoding: str = "UTF8"


@dataclass(slots=True, kw_only=True)
class Trial:
    """A database that was set up for a case, and a folder with the case's plan."""

    desk: Desk
    admin: Desk
    """the same database as the tests' superuser"""

    def call(self, command: str, *arguments: str, plan: bool = True) -> Said:
        """A command in this process; an exception that it does not catch is exit 1, as in a shell."""
        try:
            return self.desk.call(command, *arguments, plan=plan)
        except Exception:  # noqa: BLE001 - whatever it is, a user would see a traceback and exit 1
            return Said(code=1, out="", err=traceback.format_exc())

    def ask(self, query: str) -> Any:
        """The first column of the first row, as the superuser."""
        return self.admin.ask(query)

    def prove(self, case: Case) -> None:
        """What check lets pass, runs; what cannot run, check stops, with the words that an operator needs."""
        said = self.call("check")
        assert said.code in case.check, f"check: exit {said.code}\n{said.all[-3000:]}"
        words = case.says + (case.stops_with if said.code != 0 else ())
        missing = [pattern for pattern in words if not re.search(pattern, said.all)]
        assert not missing, f"check does not say {missing}:\n{said.all[-3000:]}"
        wrong = [pattern for pattern in case.never if re.search(pattern, said.all)]
        assert not wrong, f"check says {wrong}:\n{said.all[-3000:]}"
        if said.code == 0 and case.run is not None:
            self.prove_run(case)

    def prove_run(self, case: Case) -> None:
        """The run that check let pass, and what it leaves in the database."""
        assert case.run is not None
        said = self.call("run")
        assert said.code in case.run, f"check found nothing; run: exit {said.code}\n{said.all[-3000:]}"
        found = {query: self.ask(query) for query in case.after}
        assert found == dict(case.after), said.all[-3000:]
