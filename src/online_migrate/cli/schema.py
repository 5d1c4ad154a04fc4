"""online-migrate schema."""

from __future__ import annotations

import json

import click

from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.json_schema import json_schema


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of plan files, for editors.

    \b
    Example:
      online-migrate schema > plan.schema.json
    First line of the plan:
      # yaml-language-server: $schema=plan.schema.json
    """
    click.echo(json.dumps(json_schema(OPERATIONS), indent=2, ensure_ascii=False))
