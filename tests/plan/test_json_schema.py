"""The JSON Schema that editors read."""

from __future__ import annotations

import json
from pathlib import Path

from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.json_schema import json_schema, schema_text
from online_migrate.plan.mistakes import keys_at
from online_migrate.plan.yaml_file import read_document
from tests.plan.standins import OPERATIONS as STANDINS

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "plan.schema.json"


def test_the_published_schema_is_the_one_that_the_loader_checks() -> None:
    """An editor never offers what the loader refuses; to update: `online-migrate schema >
    docs/plan.schema.json`.
    """
    assert SCHEMA.read_text() == schema_text(OPERATIONS)


def test_every_operation_has_its_entry() -> None:
    """A new operation is known to editors as soon as it is in the registry."""
    schema = json_schema(STANDINS)
    steps = schema["$defs"]["Step"]["properties"]
    assert list(steps) == list(STANDINS)
    assert {"type": "string"} in steps["create_tables"]["anyOf"]
    assert steps["analyze"]["description"] == "what analyze does"


def test_every_key_of_the_shop_s_plan_is_in_the_schema() -> None:
    """An editor shows no error in the example."""
    path = ROOT / "plans" / "multi_tenant.yaml"
    document = read_document(path.read_text(), str(path))
    schema = json.loads(SCHEMA.read_text())
    for loc in document.keys:
        free = {"secrets", "table_sets", "where", "values"}
        if len(loc) > 1 and loc[-2] in free:
            continue
        assert loc[-1] in keys_at(schema, loc[:-1]), loc


def test_values_read_as_plans_spell_them() -> None:
    """A default that is shown can be typed in as it is."""
    defs = json_schema(OPERATIONS)["$defs"]
    assert defs["Pace"]["properties"]["batch_target"]["default"] == "50ms"
    assert defs["LockRules"]["properties"]["long_statement"]["default"] == "1d"
    assert "``" not in SCHEMA.read_text()
    assert defs["HoldWhen"]["properties"]["standby_lag"].get("default") is None


def test_the_example_names_its_schema() -> None:
    """Editors with a YAML language server check a copied plan from the first key on."""
    first = (ROOT / "plans" / "multi_tenant.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../docs/plan.schema.json"
    assert (ROOT / "plans" / first.split("=")[1]).resolve() == SCHEMA
