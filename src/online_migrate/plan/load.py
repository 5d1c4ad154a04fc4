"""From the text of a plan to its model; all mistakes are reported together, with line, step and a suggestion.

A plan is data: its YAML runs nothing, and no file is read but those that its steps name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from online_migrate.errors import PlanError
from online_migrate.plan.document import PlanFile, StageEntry
from online_migrate.plan.hours import Hours
from online_migrate.plan.mistakes import Mistakes, did_you_mean, keys_at, show
from online_migrate.plan.model import Phase, Plan, Stage, StepSpec
from online_migrate.plan.operation_type import OperationType
from online_migrate.plan.references import check_references
from online_migrate.plan.yaml_file import Document, Loc, read_document

LARGEST_BYTES: Final = 10_000_000
"""of a plan's text: a plan over three hundred tables has about ten thousand"""

GIVE: Final = "give the path of a plan"
_ORDER: Final = tuple(Phase)


def load_file(path: Path, operations: Mapping[str, OperationType]) -> Plan:
    """The plan in a file; raises :class:`PlanError`, for several mistakes :class:`PlanErrors`."""
    return load(_read_text(path), operations, path=path)


def load(text: str, operations: Mapping[str, OperationType], *, path: Path) -> Plan:
    """The plan in a text; ``path`` is its name in messages, and files that it names are looked for beside it.

    Raises :class:`PlanError`, for several mistakes :class:`PlanErrors`.
    """
    document = read_document(text, str(path))
    mistakes = Mistakes(document)
    if document.data is None:
        remedy = "start with the keys plan and stages; plans/multi_tenant.yaml is an example"
        raise PlanError("the plan is empty", where=document.where(()), remedy=remedy)
    file = mistakes.read(PlanFile, document.data, ())
    steps = dict(_StepReader(document, operations, mistakes, path.parent).read_all())
    _check_names(document.data, mistakes)
    check_references(document.data, mistakes)
    mistakes.raise_if_any()
    assert isinstance(file, PlanFile)  # else there were mistakes
    stages = []
    for i, entry in enumerate(file.stages):
        specs = tuple(steps["stages", i, "steps", j] for j in range(len(entry.steps)))
        stages.append(_stage(entry, specs, operations, document.where(("stages", i))))
    return Plan(
        name=file.plan,
        requires=file.requires,
        schema=file.schema_,
        secrets=file.secrets,
        table_sets=file.table_sets,
        locks=file.locks,
        stages=tuple(stages),
        path=path,
        stays_global=tuple(file.stays_global),
        hours=None if file.hours is None else Hours.parse(file.hours),
    )


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        message = f"no such file{did_you_mean(path.name, near)}"
        raise PlanError(message, where=str(path), remedy=GIVE) from error
    except OSError as error:
        raise PlanError(f"cannot be read: {error.strerror}", where=str(path), remedy=GIVE) from error
    if len(content) > LARGEST_BYTES:
        raise PlanError(f"larger than {LARGEST_BYTES:,} bytes: not a plan", where=str(path), remedy=GIVE)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PlanError(
            "this is not UTF-8 text", where=f"{path}:{line}", remedy="save it as UTF-8"
        ) from error


def _stage(
    entry: StageEntry, specs: tuple[StepSpec, ...], operations: Mapping[str, OperationType], where: str
) -> Stage:
    latest = max((operations[s.operation].phase for s in specs), key=_ORDER.index)
    return Stage(
        name=entry.stage,
        phase=latest if entry.phase is None else Phase(entry.phase),
        gate=entry.gate,
        pace=entry.pace,
        hold_when=entry.hold_when,
        steps=specs,
        where=where,
    )


def _check_names(data: Any, mistakes: Mistakes) -> None:
    """Note stages of the same name: names identify them."""
    first: dict[str, int] = {}
    for i, stage in enumerate(_list_at(data, "stages")):
        name = stage.get("stage") if isinstance(stage, dict) else None
        if isinstance(name, str) and first.setdefault(name, i) != i:
            text = f"stage {first[name] + 1} of the plan has this name too; give each its own"
            mistakes.add(("stages", i, "stage"), text, of_key=True)


class _StepReader:
    """Reads the steps of all stages, whatever else is wrong with the plan."""

    def __init__(
        self, document: Document, operations: Mapping[str, OperationType], mistakes: Mistakes, folder: Path
    ) -> None:
        self._data: Any = document.data
        self._document = document
        self._operations = operations
        self._mistakes = mistakes
        self._folder = folder
        named = self._data.get("table_sets") if isinstance(self._data, dict) else None
        self._sets = list(named) if isinstance(named, dict) else []

    def read_all(self) -> Iterator[tuple[Loc, StepSpec]]:
        """Each valid step, by its place."""
        for i, stage in enumerate(_list_at(self._data, "stages")):
            titles: dict[str, int] = {}
            for j, step in enumerate(_list_at(stage, "steps")):
                loc: Loc = ("stages", i, "steps", j)
                spec = self._read(step, loc)
                if spec is None:
                    continue
                if (first := titles.setdefault(spec.title, j)) != j:
                    text = (
                        f"step {first + 1} of this stage is '{spec.title}' too; the journal identifies steps"
                        " by"
                        " this title: name both tables in one step (tables: […]), or move one to another"
                        " stage"
                    )
                    self._mistakes.add(loc, text)
                yield loc, spec

    def _read(self, step: object, loc: Loc) -> StepSpec | None:
        name = self._operation_name(step, loc)
        if name is None:
            return None
        assert isinstance(step, dict)  # _operation_name found it to be one
        operation = self._operations[name]
        at = (*loc, name)
        data = step[name]
        if operation.shorthand is not None and not isinstance(data, dict | list | None):
            data = {operation.shorthand: data}
        if not isinstance(data, dict):
            keys = ", ".join(keys_at(operation.Params.model_json_schema(), ()))
            self._mistakes.add(at, f"expected a mapping of its parameters ({keys}), found {show(data)}")
            return None
        params = self._mistakes.read(operation.Params, data, at)
        loaded = self._load(operation, params, at) if params is not None else None
        if loaded is None or not self._has_tables(operation, loaded, at):
            return None
        return StepSpec(
            operation=name, title=operation.title(loaded), params=loaded, where=self._document.where(loc)
        )

    def _operation_name(self, step: object, loc: Loc) -> str | None:
        """The one operation of a step, or None and the mistake noted."""
        known = list(self._operations)
        if isinstance(step, str) and step in self._operations:
            self._mistakes.add(loc, f"'{step}' needs its parameters: write `- {step}: {{…}}`")
        elif not isinstance(step, dict) or not step:
            self._mistakes.add(loc, f"a step is `- operation: {{parameters}}`, found {show(step)}")
        elif len(step) > 1:
            self._mistakes.add(loc, self._why_several(step))
        elif (name := next(iter(step))) not in self._operations:
            self._mistakes.add(
                (*loc, name), f"unknown operation '{name}'{did_you_mean(name, known)}", of_key=True
            )
        else:
            return str(name)
        return None

    def _why_several(self, step: dict[str, object]) -> str:
        first, *others = step
        if step[first] is None and first in self._operations and not set(others) & set(self._operations):
            return f"indent {', '.join(others)} further: they belong to {first}, but are written beside it"
        return f"a step is one operation, found {', '.join(step)}; start each with its own dash"

    def _has_tables(self, operation: OperationType, params: BaseModel, at: Loc) -> bool:
        """Whether the step names an existing table set, or a list that names each table once."""
        named = operation.targets(params)
        at = (*at, "tables")
        if isinstance(named, str) and named not in self._sets:
            meant = did_you_mean(named, self._sets) or f"; for the table of that name write `table: {named}`"
            self._mistakes.add(at, f"no table set '{named}' in the plan{meant}")
            return False
        if not named:
            self._mistakes.add(at, "names no table, so the step would do nothing")
        elif not isinstance(named, str) and (
            twice := [str(t) for i, t in enumerate(named) if t in named[:i]]
        ):
            self._mistakes.add(at, f"names {', '.join(twice)} twice")
        return True

    def _load(self, operation: OperationType, params: BaseModel, at: Loc) -> BaseModel | None:
        """The parameters with the files that they name read."""
        try:
            return operation.load(params, self._folder)
        except PlanError as error:
            self._mistakes.add_error(error, at)
        except OSError as error:
            self._mistakes.add(at, f"the file {error.filename} cannot be read: {error.strerror}")
        except ValueError as error:
            self._mistakes.add(at, str(error))
        return None


def _list_at(data: object, key: str) -> list[Any]:
    entries = data.get(key) if isinstance(data, dict) else None
    return entries if isinstance(entries, list) else []
