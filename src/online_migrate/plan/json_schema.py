"""The JSON Schema of the plan file, for editors: what the loader checks, described
by the models' docstrings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from online_migrate.plan.document import PlanFile
from online_migrate.plan.operation_type import OperationType

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _ForEditors(GenerateJsonSchema):
    """Without titles that repeat the key, without null for what can be left out, with defaults as plans spell
    them.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = schema["schema"]
        default = schema.get("default")
        if default is None and inner["type"] == "nullable":
            return self.generate_inner(inner["schema"])
        made = super().default_schema(schema)
        write = inner.get("serialization", {}).get("function")
        return made if write is None or default is None else {**made, "default": write(default)}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        return {**made, "additionalProperties": False} if "patternProperties" in made else made


def json_schema(operations: Mapping[str, OperationType]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a plan that may use these operations."""
    models = [(PlanFile, "validation"), *((o.Params, "validation") for o in operations.values())]
    references, definitions = models_json_schema(models, schema_generator=_ForEditors)  # type: ignore[arg-type]
    defs: dict[str, Any] = definitions["$defs"]
    defs["Step"] = {
        "title": "Step",
        "description": "One operation, over one table or over all tables of a set.",
        "type": "object",
        "properties": {n: _params(o, references[o.Params, "validation"]) for n, o in operations.items()},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    defs["StageEntry"]["properties"]["steps"]["items"] = {"$ref": "#/$defs/Step"}
    plan = defs.pop("PlanFile")
    made = {"$schema": DIALECT, **plan, "title": "online-migrate plan", "$defs": dict(sorted(defs.items()))}
    return dict(_in_markdown(made))


def _in_markdown(schema: Any) -> Any:
    """Docstrings mark code by two backticks, editors by one."""
    if isinstance(schema, dict):
        return {key: _in_markdown(value) for key, value in schema.items()}
    return schema.replace("``", "`") if isinstance(schema, str) else schema


def _params(operation: OperationType, reference: JsonSchemaValue) -> dict[str, Any]:
    """The value of an operation's key: its parameters, or the one text that may replace them."""
    if operation.shorthand is None:
        return {"description": operation.summary, **reference}
    return {"description": operation.summary, "anyOf": [{"type": "string"}, reference]}


def schema_text(operations: Mapping[str, OperationType]) -> str:
    """:func:`json_schema` as ``online-migrate schema`` prints it and ``docs/plan.schema.json`` holds it."""
    return json.dumps(json_schema(operations), indent=2, ensure_ascii=False) + "\n"
