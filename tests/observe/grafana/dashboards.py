"""What the committed dashboards and alerts ask of Prometheus, variables put in as Grafana does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ruamel.yaml import YAML

from grafana.dashboard import FOLDER, PAGES

Panel = dict[str, Any]
ALERTS: Final = FOLDER.parent / "alerts.yml"
_OPERATOR: Final = re.compile(
    r"\s*(?:(?:==|!=|>=|<=|>|<)(?:\s+bool\b)?|\b(?:and|or|unless)\b)"
    r"(?:\s+(?:on|ignoring)\s*\([^)]*\))?(?:\s+group_(?:left|right)\s*(?:\([^)]*\))?)?\s*"
)


def committed(uid: str) -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    dashboard: dict[str, Any] = json.loads((FOLDER / f"{uid}.json").read_text(encoding="utf-8"))
    return dashboard


def panels(uid: str) -> list[Panel]:
    """All panels that ask for something: neither rows nor texts."""
    return [panel for panel in committed(uid)["panels"] if panel["type"] not in {"row", "text"}]


def expressions() -> Iterator[tuple[str, str]]:
    """Every panel's title with each of its expressions, of all dashboards."""
    for uid in PAGES:
        for panel in panels(uid):
            for target in panel["targets"]:
                yield f"{uid}: {panel['title']}", target["expr"]


def figures() -> Iterator[tuple[str, str]]:
    """What is asked for one moment and not over time: each panel's title, or each column's, with its
    expression.
    """
    for uid in PAGES:
        for panel in panels(uid):
            for target in panel["targets"]:
                if target.get("instant"):
                    is_column = len(panel["targets"]) > 1
                    yield target["legendFormat"] if is_column else panel["title"], target["expr"]


def marks() -> Iterator[tuple[str, str]]:
    """Every annotation's name with its expression; both dashboards have the same."""
    for annotation in committed(next(iter(PAGES)))["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    groups: list[dict[str, Any]] = YAML(typ="safe").load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [dict(rule) for group in groups for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    """The names of our metrics in an expression, with what a histogram or a counter adds."""
    return set(re.findall(r"online_migrate_\w+", expression))


def put_in(expression: str, values: Mapping[str, str]) -> str:
    """``$name`` and ``${name}`` replaced; a variable that has no value is a mistake."""
    text = re.sub(r"\$\{?(\w+)\}?", lambda match: values[match[1]], expression)
    assert "$" not in text
    return text


def sides(expression: str) -> list[str]:
    """What an alert compares or combines, down to what has no comparison left: each must have data where all
    is well.
    """
    text = expression.strip()
    while text.startswith("(") and _closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    parts = _split(text)
    if len(parts) == 1:
        return [] if re.fullmatch(r"[\d.]+", text) else [text]
    return [side for part in parts for side in sides(part)]


def _split(text: str) -> list[str]:
    """At the operators outside parentheses and selectors."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(text[at], 0)
        found = _OPERATOR.match(text, at) if depth == 0 else None
        if found:
            parts.append(text[start:at])
            start = at = found.end()
        else:
            at += 1
    return [*parts, text[start:]]


def _closing(text: str) -> int:
    """Where the parenthesis at the beginning is closed."""
    depth = 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return at
    return -1
