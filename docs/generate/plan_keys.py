"""The plan reference: every model of a plan file with its keys."""

from __future__ import annotations

from docs.generate.keys import PLAN_MODELS, SCHEMA, keys_table, model_section
from docs.generate.markdown import sentence


def all_models(page: str) -> str:  # noqa: ARG001  # every maker is given its page
    """The plan file, then each model that a key of it leads to, in the order in
    which they are first named.
    """
    first = f"### The plan file\n\n{sentence(SCHEMA['description'])}\n\n{keys_table(SCHEMA)}"
    return "\n\n".join([first, *(model_section(name) for name in PLAN_MODELS)])
