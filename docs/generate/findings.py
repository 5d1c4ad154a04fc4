"""The codes of findings, read from the source: each place that makes a finding names its code."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from docs.generate.markdown import table
from docs.generate.packages import SOURCE
from online_migrate.operations.registry import OPERATIONS

_CODE: Final = re.compile(r"[a-z][a-z_]+")
_FOLDERS: Final = ("operations", "backfill", "engine")
"""where findings are made"""
_MAKERS: Final = {"Finding", "Contradiction", "_finding", "_stop", "_warn"}
_UNKNOWN: Final = "depends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place of the source that makes a finding."""

    code: str
    severity: str
    module: str


def all_codes(page: str) -> str:  # noqa: ARG001  # every maker is given its page
    """Every code with its severity, and what reports it."""
    places = defaultdict(list)
    for place in _places():
        places[place.code].append(place)
    rows = [(f"`{code}`", _severities(found), _reporters(found)) for code, found in sorted(places.items())]
    return table(("code", "severity", "reported by"), rows)


def _places() -> Iterator[Place]:
    for folder in _FOLDERS:
        for path in sorted((SOURCE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _name(node) in _MAKERS:
                    yield from _of_call(node, path)


def _of_call(call: ast.Call, path: Path) -> Iterator[Place]:
    given = {k.arg: k.value for k in call.keywords}
    values = [given["code"]] if "code" in given else call.args
    severities = [given["severity"]] if "severity" in given else call.args
    for code in filter(None, map(_code, values)):
        is_stop = _name(call) in {"_stop", "Contradiction"}
        said = [*filter(None, map(_severity, severities)), *(["stop"] * is_stop)]
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        yield Place(code=code, severity=said[0] if said else _UNKNOWN, module=module)


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _code(value: ast.expr) -> str | None:
    """A constant, or the beginning of one that is put together, with a star."""
    if isinstance(value, ast.JoinedStr):
        value, star = value.values[0], "*"
    else:
        star = ""
    is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    text = value.value if is_text and isinstance(value, ast.Constant) else ""
    return f"{text}{star}" if isinstance(text, str) and _CODE.fullmatch(text) else None


def _severity(value: ast.expr) -> str | None:
    """``Severity.STOP``, also by a short name of the class; ``depends`` where it is chosen."""
    if isinstance(value, ast.IfExp):
        return _UNKNOWN
    if isinstance(value, ast.Attribute) and value.attr.isupper():
        return value.attr.lower()
    return None


def _severities(places: list[Place]) -> str:
    found = sorted({p.severity for p in places})
    return found[0] if len(found) == 1 else _UNKNOWN


def _reporters(places: list[Place]) -> str:
    return ", ".join(sorted({_reporter(p.module) for p in places}))


def _reporter(module: str) -> str:
    last = module.rpartition(".")[2]
    if module.startswith("operations.") and last in OPERATIONS:
        return f"[{last}](operations/{last}.md)"
    if module.startswith("backfill."):
        return "[backfill](operations/backfill.md)"
    return "every operation" if module.startswith("operations.") else "check of the plan and the server"
