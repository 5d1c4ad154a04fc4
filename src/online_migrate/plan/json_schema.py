"""The JSON Schema of the plan file, for editors: what the loader checks, described by the models' docstrings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic.json_schema import JsonSchemaValue, models_json_schema

from online_migrate.plan.document import PlanFile
from online_migrate.plan.model import OperationType

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema(operations: Mapping[str, OperationType]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a plan that may use these operations."""
    models = [(PlanFile, "validation"), *((o.Params, "validation") for o in operations.values())]
    references, definitions = models_json_schema(models, ref_template="#/$defs/{model}")  # type: ignore[arg-type]
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
    return {"$schema": DIALECT, **plan, "title": "online-migrate plan", "$defs": dict(sorted(defs.items()))}


def _params(operation: OperationType, reference: JsonSchemaValue) -> dict[str, Any]:
    """What stands behind an operation's name: its parameters, or the one text that may stand for them."""
    if operation.shorthand is None:
        return {"description": operation.summary, **reference}
    return {"description": operation.summary, "anyOf": [{"type": "string"}, reference]}
