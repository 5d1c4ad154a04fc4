"""An operation's page: its summary and parameters, and the SQL and locks of the example plan that the page
shows.
"""

from __future__ import annotations

import inspect
import re
import tempfile
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final

from docs.generate import ROOT
from docs.generate.effects import effects_table
from docs.generate.keys import DEFS, PLAN_MODELS, keys_table, model_section, models_of
from docs.generate.markdown import first_paragraph, sentence, table
from online_migrate.cli.locks import markdown_lines
from online_migrate.engine.explain import ExplainedStep, Explanation, explain
from online_migrate.engine.lock_table import LockLine, lock_lines
from online_migrate.operations.contract.base import Kind, Statement
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load, load_file

UP: Final = "../"
"""from an operation's page to docs/"""
_EXAMPLE: Final = re.compile(r"```yaml\n(?P<text>plan: .*?)```", flags=re.DOTALL)
_FILE: Final = re.compile(r"```sql\n-- file: (?P<name>[\w.]+)\n(?P<text>.*?)```", flags=re.DOTALL)
_SECTIONS: Final = {"what": "What it does", "crash": "On a crash", "rollback": "How to undo"}
"""parts that are sections of the operation's docstring"""
_HOW: Final = {
    Kind.WINDOW: "in a lock window",
    Kind.LONG: "alone and watched, for as long as it takes",
    Kind.BATCH: "once per batch",
    Kind.WRITE: "in a short transaction",
    Kind.READ: "reads only",
}


def index(page: str) -> str:  # noqa: ARG001  # every maker is given its page
    """All operations with their phase and summary."""
    rows = (
        (f"[{name}]({name}.md)", operation.phase.value, sentence(operation.summary))
        for name, operation in OPERATIONS.items()
    )
    return table(("operation", "phase", "what it does"), rows)


def part(page: str, name: str, what: str) -> str:
    """One generated part of an operation's page."""
    if what in _SECTIONS:
        return section_of(name, _SECTIONS[what])
    return {
        "summary": _summary,
        "parameters": _parameters,
        "sql": _sql,
        "locks": _locks,
        "effects": _effects,
    }[what](page, name)


def section_of(name: str, title: str) -> str:
    """A section of the operation's docstring: the paragraph that begins with its title."""
    paragraphs = (inspect.getdoc(type(OPERATIONS[name])) or "").split("\n\n")
    texts = [p.partition(":")[2] for p in paragraphs if p.startswith(f"{title}:")]
    assert texts, f"the docstring of operation {name} has no section '{title}:'"
    linked = re.sub(r"\bdocs/([\w-]+\.md)", rf"[\1]({UP}\1)", sentence(texts[0]))
    return textwrap.fill(linked, 110, break_long_words=False, break_on_hyphens=False)


def lock_table(page: str, plan: str) -> str:  # noqa: ARG001  # every maker is given its page
    """Every lock of a plan of the project, as ``online-migrate locks --format markdown`` prints it."""
    explanation = explain(load_file(ROOT / plan, OPERATIONS), None)
    return "\n".join(markdown_lines(list(lock_lines(explanation))))


def example_of(page: str) -> str:
    """The plan that a page shows."""
    found = _EXAMPLE.search(page)
    assert found is not None, "the page shows no plan: a yaml block that begins with `plan: `"
    return found["text"]


def files_of(page: str) -> dict[str, str]:
    """The SQL files that a page shows beside its plan, by name."""
    return {found["name"]: found["text"] for found in _FILE.finditer(page)}


@cache
def explained(page: str) -> Explanation:
    """The page's example as ``explain`` sees it without a database."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files_of(page).items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        return explain(load(example_of(page), OPERATIONS, path=Path(folder) / "plan.yaml"), None)


def _summary(page: str, name: str) -> str:  # noqa: ARG001  # every part is given its page
    operation = OPERATIONS[name]
    return f"{sentence(first_paragraph(operation.__doc__))} Phase: {operation.phase.value}."


def _parameters(page: str, name: str) -> str:  # noqa: ARG001  # every part is given its page
    operation = OPERATIONS[name]
    schema, short = DEFS[operation.Params.__name__], operation.shorthand
    own = [n for n in dict.fromkeys(models_of(schema)) if n not in PLAN_MODELS]
    parts = [keys_table(schema, folder=UP), *(model_section(n, folder=UP) for n in own)]
    if short is not None:
        parts.append(f"Short form: `{name}: VALUE` means `{name}: {{{short}: VALUE}}`.")
    return "\n\n".join(parts)


def _steps(page: str, name: str) -> list[ExplainedStep]:
    return [step for step in explained(page).steps if step.operation == name]


def _sql(page: str, name: str) -> str:
    return "```sql\n" + "\n".join(_sql_lines(_steps(page, name))) + "\n```"


def _sql_lines(steps: list[ExplainedStep]) -> Iterator[str]:
    for table_name, members in groupby(steps, key=lambda step: step.table):
        yield f"-- {table_name}" if table_name else "-- (no table of its own)"
        for statement in (s for step in members for s in step.statements):
            yield f"{_commented(statement)}\n{statement.text};"


def _commented(statement: Statement) -> str:
    return f"-- {_HOW[statement.kind]}" + (f": {statement.note}" if statement.note else "")


def _effects(page: str, name: str) -> str:
    return effects_table(explained(page), name)


def _locks(page: str, name: str) -> str:
    titles = {step.step for step in _steps(page, name)}
    lines = [line for line in lock_lines(explained(page)) if line.step in titles]
    said = section_of(name, "Locks")
    if not lines:
        return said
    head = ("statement", "lock", "on", "how long", "what waits behind it")
    return f"{said}\n\n{table(head, (_lock_row(line) for line in lines))}"


def _lock_row(line: LockLine) -> tuple[str, ...]:
    on = ", ".join(f"`{relation}`" for relation in line.relations)
    return (f"[{line.statement}]({line.manual})", line.mode.sql, on, line.how_long, line.waits_behind)
