"""From YAML text to plain data in which every key and value knows its line and column.

The text is only *composed* by ruamel.yaml (in ``rt`` mode, YAML 1.2), never constructed: no tag makes an
object, nothing else is read, and all mistakes, such as a duplicate key, are found in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from online_migrate.errors import PlanError
from online_migrate.printable import printable

Loc = tuple[str | int, ...]
"""The path to a value: ``("stages", 0, "steps", 2)``."""

LARGEST: Final = 100_000
"""values in a plan, those of an alias counted each time: aliases of aliases must not fill the memory"""

REMEDY: Final = "a plan is one YAML document, indented by spaces; its JSON Schema tells editors the keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a YAML text holds, as dict, list, str, int, float, bool and None, and the place of each."""

    name: str
    data: object
    keys: Mapping[Loc, tuple[int, int]]
    values: Mapping[Loc, tuple[int, int]]
    mistakes: tuple[PlanError, ...]
    """what is not valid data, such as a duplicate key; ``data`` holds the rest"""

    def where(self, loc: Loc, *, of_key: bool = False) -> str:
        """``file:line:column`` of a value, or of its key; if it does not exist, of the nearest value around
        it.
        """
        found = self.keys.get(loc) if of_key else None
        while found is None and loc:
            found = self.values.get(loc)
            loc = loc[:-1]
        line, column = found or self.values.get((), (1, 1))
        return f"{self.name}:{line}:{column}"


def read_document(text: str, name: str) -> Document:
    """Read one YAML document; raises :class:`PlanError` with the line where the text is not YAML."""
    reader = _Reader(name)
    try:
        node = YAML(typ="rt", pure=True).compose(text)
        data = None if node is None else reader.read(node, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        begun = f" ({error.context}, line {error.context_mark.line + 1})" if error.context_mark else ""
        message = f"this is not valid YAML: {error.problem or error.context}{begun}"
        raise PlanError(printable(message), where=where, remedy=REMEDY) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"this is not valid YAML: it must not contain the character U+{_code(error.character):04X}"
        raise PlanError(message, where=f"{name}:{line}", remedy=REMEDY) from error
    except PlanError:
        raise
    except RecursionError as error:
        raise PlanError("this is nested too deeply for a plan", where=name, remedy=REMEDY) from error
    except Exception as error:  # broken escapes raise ValueError, OverflowError and others
        raise PlanError(printable(f"this is not valid YAML: {error}"), where=name, remedy=REMEDY) from error
    return Document(
        name=name, data=data, keys=reader.keys, values=reader.values, mistakes=tuple(reader.mistakes)
    )


class _Reader:
    """Walks the nodes of one document."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: dict[Loc, tuple[int, int]] = {}
        self.values: dict[Loc, tuple[int, int]] = {}
        self.mistakes: list[PlanError] = []
        self._within: set[int] = set()

    def read(self, node: Node, loc: Loc) -> object:
        if id(node) in self._within:
            raise PlanError("an alias (*) is inside its own anchor (&)", where=self._at(node), remedy=REMEDY)
        if len(self.values) >= LARGEST:
            message = f"more than {LARGEST:,} values, aliases counted each time: too many for a plan"
            raise PlanError(message, where=self._at(node), remedy=REMEDY)
        self.values[loc] = _place(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if str(node.tag) not in {f"{_TAG}seq", f"{_TAG}map"}:
            self._note_tag(node)
            return ""
        self._within.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self.read(entry, (*loc, i)) for i, entry in enumerate(node.value)]
            assert isinstance(node, MappingNode)  # the third and last kind of node
            return self._mapping(node, loc)
        finally:
            self._within.discard(id(node))

    def _mapping(self, node: MappingNode, loc: Loc) -> dict[str, object]:
        data: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, ScalarNode) or not _is_text(key):
                self._note("a key must be a plain word", key_node)
            elif key in data:
                line = self.keys[*loc, key][0]
                self._note(f"duplicate key '{key}'; first on line {line}", key_node)
            else:
                self.keys[*loc, key] = _place(key_node)
                data[key] = self.read(value_node, (*loc, key))
                if data[key] is None:  # YAML places an empty value at the start of the next line
                    self.values[*loc, key] = _place(key_node)
        return data

    def _scalar(self, node: ScalarNode) -> object:
        text: str = node.value
        read = _SCALARS.get(str(node.tag))
        if read is None:
            self._note_tag(node)
        elif not _is_text(text):
            self._note(
                "a character that PostgreSQL cannot store in a text (\\0 or half of a surrogate pair)", node
            )
        else:
            try:
                return read(text)
            except ValueError:
                self._note(f"'{text[:40]}' is not a valid number; put a text in quotes", node)
        return ""

    def _note_tag(self, node: Node) -> None:
        self._note(f"a plan has no tags; found {str(node.tag).replace(_TAG, '!!')}", node)

    def _note(self, message: str, node: Node) -> None:
        self.mistakes.append(PlanError(printable(message), where=self._at(node), remedy=REMEDY))

    def _at(self, node: Node) -> str:
        line, column = _place(node)
        return f"{self.name}:{line}:{column}"


def _code(character: int | str) -> int:
    return character if isinstance(character, int) else ord(character)


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _is_text(text: object) -> bool:
    return isinstance(text, str) and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def _read_integer(text: str) -> int:
    try:
        return int(text, 10)  # 012 is twelve in YAML 1.2
    except ValueError:
        return int(text, 0)


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_TAG: Final = "tag:yaml.org,2002:"
_SCALARS: Final[Mapping[str, Callable[[str], object]]] = {
    f"{_TAG}str": str,
    f"{_TAG}int": _read_integer,
    f"{_TAG}float": _read_float,
    f"{_TAG}bool": lambda text: text.lower() in {"true", "yes", "on", "y"},
    f"{_TAG}null": lambda _: None,
    f"{_TAG}timestamp": str,  # a date in a plan is the text of a parameter
    f"{_TAG}merge": str,
    f"{_TAG}value": str,
}
