"""The keys of one model as a table: key, type, default, meaning; from the JSON Schema that editors read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from docs.generate.markdown import sentence, table
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.json_schema import json_schema

SCHEMA: Final = json_schema(OPERATIONS)
DEFS: Final[dict[str, Any]] = SCHEMA["$defs"]
PLAN_PAGE: Final = "plan.md"
_UNITS: Final = {"us": "duration", "B": "size", "%": "share"}
_TARGETS: Final = {
    "table": "One table. Give exactly one of `table` and `tables`",
    "tables": "A table set, or a list of tables",
}


def models_of(entry: Any) -> Iterator[str]:
    """Models that keys of ``entry`` lead to, at any depth; those of steps are left out."""
    if isinstance(entry, list):
        for part in entry:
            yield from models_of(part)
    elif isinstance(entry, dict):
        name = str(entry.get("$ref", "")).rpartition("/")[2]
        if name and name != "Step":
            yield name
            yield from models_of(DEFS[name])
        for key, part in entry.items():
            if key != "$defs":
                yield from models_of(part)


PLAN_MODELS: Final = tuple(dict.fromkeys(models_of(SCHEMA)))
"""the models of the plan reference; others are on the page of their operation"""


def model_section(name: str, *, folder: str = "") -> str:
    """A model with its keys."""
    entry = DEFS[name]
    return f"### {name}\n\n{sentence(entry.get('description', ''))}\n\n{keys_table(entry, folder=folder)}"


def keys_table(schema: dict[str, Any], *, folder: str = "") -> str:
    """``folder`` leads from the page to docs/."""
    required = schema.get("required", [])
    targets = _TARGETS if "tables" in schema["properties"] else {"table": "The table"}
    rows = [
        (
            f"`{key}`",
            type_text(entry, folder),
            _default(entry, is_required=key in required),
            sentence(entry.get("description", targets.get(key, ""))),
        )
        for key, entry in schema["properties"].items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def type_text(entry: dict[str, Any], folder: str) -> str:
    """A JSON Schema type in words; models lead to their section of the plan reference."""
    if "$ref" in entry:
        return _link(str(entry["$ref"]).rpartition("/")[2], folder)
    if "anyOf" in entry:
        return " or ".join(type_text(choice, folder) for choice in entry["anyOf"])
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    kind = str(entry.get("type", "anything"))
    if kind == "array":
        return f"list of {type_text(entry.get('items', {}), folder)}"
    if kind == "object":
        return _mapping(entry, folder)
    if kind in ("integer", "number"):
        return kind + _range(entry)
    return _text(entry, folder) if kind == "string" else kind


def _mapping(entry: dict[str, Any], folder: str) -> str:
    named = list(entry.get("patternProperties", {}).values())
    values: Any = entry.get("additionalProperties") or (named[0] if named else True)
    return "mapping" if values is True else f"mapping of names to {type_text(values, folder)}"


def _range(entry: dict[str, Any]) -> str:
    least = entry.get("minimum", entry.get("exclusiveMinimum"))
    most = entry.get("maximum")
    if least is None and most is None:
        return ""
    if most is None:
        return f", above {least:,}" if "exclusiveMinimum" in entry else f", {least:,} or more"
    return f", {least:,} to {most:,}"


def _text(entry: dict[str, Any], folder: str) -> str:
    page = f"{folder}{PLAN_PAGE}" if folder else ""
    units = re.search(r"\(((?:us|B|%)[^)]*)\)", entry.get("pattern", ""))
    kind = None if units is None else _UNITS.get(units[1].split("|")[0])
    return "text" if kind is None else f"[{kind}]({page}#units)"


def _default(entry: dict[str, Any], *, is_required: bool) -> str:
    if is_required:
        return "required"
    default = entry.get("default")
    return "" if default is None or default in ([], {}) else f"`{_spelled(default)}`"


def _spelled(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default)


def _link(name: str, folder: str) -> str:
    page = f"{folder}{PLAN_PAGE}" if folder and name in PLAN_MODELS else ""
    return f"[{name}]({page}#{name.lower()})"
