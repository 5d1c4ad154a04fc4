"""``<table>``, ``<master.id>``, ``<secret.token>``: the only references of a plan,
in the order of its steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from online_migrate.plan.mistakes import Mistakes, did_you_mean
from online_migrate.plan.yaml_file import Loc

SECRET_FORMS: Final = ("masked", "sha256")
"""``<secret.NAME.masked>`` is the part that may be shown, ``<secret.NAME.sha256>`` its digest"""

_WHOLE: Final = re.compile(r"<[^<>]*>")
_WORD: Final = re.compile(r"[\w.<>]*")
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")


def reference_in(value: object) -> str | None:
    """The name in ``<name>``, if the whole value is one reference; None for any other text: text is data."""
    return value[1:-1] if isinstance(value, str) and _WHOLE.fullmatch(value) else None


def check_references(data: Any, mistakes: Mistakes) -> None:
    """Note each reference to nothing, or to a row that only a later step ensures."""
    declared = data.get("secrets") if isinstance(data, dict) else None
    secrets = [str(name) for name in declared] if isinstance(declared, dict) else []
    steps = list(_steps(data))
    ids = [name for _, step in steps if (name := _id_of(step)) is not None]
    known: list[str] = []
    for loc, step in steps:
        for at, text in _texts(step, loc):
            if problem := _problem_of_text(text, known, ids, secrets):
                mistakes.add(at, problem)
        name = _id_of(step)
        if name in {"secret", "table"}:
            mistakes.add(loc, f"the id '{name}' is reserved: <{name}> has a meaning of its own")
        elif name is not None and not _NAME.fullmatch(name):
            mistakes.add(loc, f"the id '{name}' cannot be referenced; use lower-case letters, digits and _")
        elif name in known:
            mistakes.add(
                loc,
                f"a step above has the id '{name}' too, so <{name}.id> would be ambiguous; rename one of"
                " them",
            )
        elif name is not None:
            known.append(name)


def _problem_of_text(text: str, known: list[str], ids: list[str], secrets: list[str]) -> str | None:
    """Only ``<table>`` may be a part of a text; every other reference is the whole of one.

    In a name (``idx_<tabel>_bot_id``) other brackets are mistakes; in prose (``<b>Welcome</b>``) they are
    allowed, except for what is clearly meant as a reference.
    """
    if _WHOLE.fullmatch(text):
        return _problem(text[1:-1], known, ids, secrets)
    others = [inner[1:-1] for inner in _WHOLE.findall(text) if inner != "<table>"]
    if not _WORD.fullmatch(text):
        others = [inner for inner in others if "." in inner and inner.split(".")[0] in {*ids, "secret"}]
    if not others:
        return None
    meant = did_you_mean(others[0], ["table"]) if "." not in others[0] else ""
    return (
        f"<{others[0]}> inside a text: only <table> may be part of a text; write other references"
        f" alone{meant}"
    )


def _problem(reference: str, known: list[str], ids: list[str], secrets: list[str]) -> str | None:
    """What is wrong with a reference; ``known`` are the ids of the steps above,
    ``ids`` those of all steps.
    """
    head, *rest = reference.split(".")
    if reference == "table":
        return None
    if head == "secret":
        return _problem_of_secret(reference, rest, secrets)
    if head in known:
        if len(rest) == 1 and _NAME.fullmatch(rest[0]):
            return None
        return f"<{reference}> names no column; <{head}.id> is the column id of that row"
    if head in ids:
        return (
            f"<{reference}> is used above the step that ensures the row '{head}'; move this step below"
            " that one"
        )
    tail = ".".join(rest) or "id"
    valid = [f"<{name}.{tail}>" for name in known] + ["<table>", *(f"<secret.{s}>" for s in secrets)]
    return f"<{reference}> is not defined{did_you_mean(f'<{reference}>', valid)}"


def _problem_of_secret(reference: str, rest: list[str], secrets: list[str]) -> str | None:
    if not rest or rest[0] not in secrets:
        meant = did_you_mean(rest[0] if rest else "", secrets)
        return f"<{reference}> names no secret of the plan's key `secrets`{meant}"
    form = ".".join(rest[1:])
    if not form or form in SECRET_FORMS:
        return None
    return f"<{reference}>: a secret has no form '{form}'{did_you_mean(form, SECRET_FORMS)}"


def _steps(data: Any) -> Iterator[tuple[Loc, object]]:
    stages = data.get("stages") if isinstance(data, dict) else None
    for i, stage in enumerate(stages if isinstance(stages, list) else []):
        steps = stage.get("steps") if isinstance(stage, dict) else None
        for j, step in enumerate(steps if isinstance(steps, list) else []):
            yield ("stages", i, "steps", j), step


def _id_of(step: object) -> str | None:
    """The name by which later steps refer to the row of this one."""
    params = next(iter(step.values())) if isinstance(step, dict) and len(step) == 1 else None
    name = params.get("id") if isinstance(params, dict) else None
    return name if isinstance(name, str) else None


def _texts(value: object, loc: Loc) -> Iterator[tuple[Loc, str]]:
    if isinstance(value, str):
        yield loc, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _texts(entry, (*loc, key))
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            yield from _texts(entry, (*loc, i))
