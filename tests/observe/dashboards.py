"""What a committed dashboard asks of Prometheus: its panels' expressions, variables put in as Grafana does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from grafana.dashboard import FILE

Panel = dict[str, Any]


def committed() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    dashboard: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return dashboard


def panels() -> list[Panel]:
    """All panels but the rows."""
    return [panel for panel in committed()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every panel's title with each of its expressions."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def metrics_of(expression: str) -> set[str]:
    """The names of metrics in an expression, without what a histogram or a counter adds."""
    return set(re.findall(r"online_migrate_\w+", expression))


def put_in(expression: str, values: Mapping[str, str]) -> str:
    """``$name`` and ``${name}`` replaced; a variable that has no value is a mistake."""
    text = re.sub(r"\$\{?(\w+)\}?", lambda match: values[match[1]], expression)
    assert "$" not in text
    return text
