"""The mistakes of a plan, for its author: where, in which step, what was found, what was probably meant."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from online_migrate.errors import PlanError, PlanErrors
from online_migrate.plan.yaml_file import Document, Loc
from online_migrate.printable import printable

REMEDY: Final = "correct the plan, then read what it would do: online-migrate explain PLAN"

_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
}
_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_UNSHOWN: Final = (("secrets",), ("locks", "standbys"))
"""places whose values are not shown: a token or a password that is written there by mistake must not appear
in a log as well
"""


class Mistakes:
    """All mistakes of one plan, reported together, in the order of its lines."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._errors: list[PlanError] = list(document.mistakes)
        self._unread = {e.where for e in document.mistakes}

    def add(self, loc: Loc, text: str, *, of_key: bool = False, remedy: str = REMEDY) -> None:
        """Note a mistake at this place; its step and its key are put before the text."""
        where = self._document.where(loc, of_key=of_key)
        if where in self._unread:
            return  # that value could not be read, which is already reported
        subject = name_of(self._document.data, loc[:-1] if of_key else loc)
        message = printable(f"{subject}: {text}" if subject else text)
        self._errors.append(PlanError(message, where=where, remedy=remedy))

    def add_error(self, error: PlanError, loc: Loc) -> None:
        """Note a mistake in a file that the step at this place names; it has its own line."""
        step = f"named by {name_of(self._document.data, loc)}, {self._document.where(loc)}"
        for each in error.errors if isinstance(error, PlanErrors) else [error]:
            message = each.message.removeprefix(f"{each.where}: ")
            self._errors.append(PlanError(f"{message} ({step})", where=each.where, remedy=each.remedy))

    def raise_if_any(self) -> None:
        """Raise them as :class:`PlanErrors`, or a single one as itself."""
        errors = sorted(self._errors, key=_by_place)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise PlanErrors(errors)

    def read(self, model: type[BaseModel], data: object, at: Loc) -> BaseModel | None:
        """``data`` as the model, or None and its mistakes noted; ``at`` is its place in the document."""
        try:  # as JSON: also strict, but a list may become a tuple, and a text an enum
            return model.model_validate_json(json.dumps(data))
        except ValidationError as error:
            found = _by_loc(error, data)
        schema = model.model_json_schema()
        unknown = {loc for loc, all_of_it in found.items() if all_of_it[0]["type"] == "extra_forbidden"}
        meant: set[Loc] = set()
        for loc in unknown:
            valid = keys_at(schema, loc[:-1])
            name = str(loc[-1])
            meant |= {(*loc[:-1], key) for key in get_close_matches(name[:64], valid, n=1)}
            self.add((*at, *loc), f"unknown key '{name}'{did_you_mean(name, valid)}", of_key=True)
        for loc, all_of_it in found.items():
            if all_of_it[0]["type"] == "missing":
                if loc not in meant:
                    self.add((*at, *loc[:-1]), f"the key {loc[-1]} is missing")
            elif loc not in unknown:
                is_key = all_of_it[0]["loc"][-1:] == ("[key]",)
                text = explain(all_of_it, is_shown=not any((*at, *loc)[: len(u)] == u for u in _UNSHOWN))
                self.add((*at, *loc), text, of_key=is_key)
        return None


def explain(errors: Sequence[ErrorDetails], *, is_shown: bool = True) -> str:
    """What pydantic says of one value, in plain words; for a union, everything that was expected."""
    kind, value, context = errors[0]["type"], errors[0]["input"], errors[0].get("ctx", {})
    found = show(value) if is_shown else "another kind of value (not shown: it may be secret)"
    expected = list(dict.fromkeys(_EXPECTED[e["type"]] for e in errors if e["type"] in _EXPECTED))
    if expected:
        hint = "; put it in quotes" if "text" in expected and isinstance(value, int | float) else ""
        return f"expected {' or '.join(expected)}, found {found}{hint}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"must be {words} {context.get(key)}, found {found}"
    if kind in {"literal_error", "enum"}:
        valid = [v.strip(" '") for v in str(context.get("expected")).replace(" or ", ", ").split(",")]
        return f"found {found}{did_you_mean(str(value), valid)}"
    if kind in {"too_short", "string_too_short"} and not value:
        return "may not be empty"
    reason = str(context.get("error", errors[0]["msg"]))
    return reason if isinstance(value, dict) else f"{reason}; found {found}"


def did_you_mean(found: str, valid: Iterable[str]) -> str:
    """``; did you mean 'owned'?``, or the valid choices."""
    known = list(valid)
    if close := get_close_matches(found[:64], known, n=1):
        return f"; did you mean '{close[0]}'?"
    return f"; valid: {', '.join(known)}" if known else ""


def show(value: object) -> str:
    """A value of a plan, short enough for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"[:60]
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}...'"
    return "a list" if isinstance(value, list) else "a mapping"


def name_of(data: Any, loc: Loc) -> str:
    """``stage columns, step 1 (add_column), type``: what a place of the plan is called."""
    parts: list[str] = []
    if loc[:1] == ("stages",) and len(loc) > 1:
        stage = data["stages"][loc[1]]
        named = stage.get("stage") if isinstance(stage, dict) else None
        parts.append(f"stage {named if isinstance(named, str) and named else int(loc[1]) + 1}")
        loc = loc[2:]
        if loc[:1] == ("steps",) and len(loc) > 1:
            step = stage["steps"][loc[1]]
            operation = next(iter(step), None) if isinstance(step, dict) and len(step) == 1 else None
            parts.append(f"step {int(loc[1]) + 1}" + (f" ({operation})" if operation else ""))
            loc = loc[3:] if loc[2:3] == (operation,) else loc[2:]
    if names := [part for part in loc if isinstance(part, str)]:
        parts.append(".".join(names))
    return ", ".join(parts)


def keys_at(schema: Mapping[str, Any], loc: Loc) -> list[str]:
    """The keys that a model's JSON Schema allows at a place of its data."""
    choices: list[Mapping[str, Any]] = [schema]
    for part in (*loc, None):
        choices = [c for choice in choices for c in _resolve(choice, schema)]
        if isinstance(part, int):
            choices = [c["items"] for c in choices if "items" in c]
        elif part is not None:
            choices = [found for c in choices for found in _below(c, part)]
    return list(dict.fromkeys(key for c in choices for key in c.get("properties", {})))


def _below(schema: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    if key in schema.get("properties", {}):
        return [schema["properties"][key]]
    others = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return [other for other in others if isinstance(other, dict)]


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schema itself, or those that it refers to."""
    if "$ref" in schema:
        return _resolve(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    if "anyOf" in schema:
        return [s for choice in schema["anyOf"] for s in _resolve(choice, root)]
    return [schema]


def _by_loc(error: ValidationError, data: object) -> dict[Loc, list[ErrorDetails]]:
    """The errors by their place in the data; where one branch of a union came further than others, only its
    errors.
    """
    found: dict[Loc, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_real_loc(data, details), []).append(details)
    for loc in list(found):
        is_deeper = any(len(other) > len(loc) and other[: len(loc)] == loc for other in found)
        if is_deeper and len(loc) < len(found[loc][0]["loc"]):
            del found[loc]
    return found


def _real_loc(data: Any, details: ErrorDetails) -> Loc:
    """The way to the error in the data: pydantic's without the names of a union's branches."""
    way: list[str | int] = []
    for part in details["loc"]:
        exists = part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int)
        if exists:
            way.append(part)
            data = data[part]
    if details["type"] == "missing":
        way.append(details["loc"][-1])
    return tuple(way)


def _by_place(error: PlanError) -> tuple[str, tuple[int, ...]]:
    name, *numbers = re.split(r":(?=\d+(?::\d+)?$)", error.where)
    return name, tuple(int(n) for n in numbers)
