"""Every finding, error and plan mistake, as the source constructs it: its message and its remedy, read from
the syntax tree.

A value that is known only when the program runs is shown as ``{expression}``; alternatives are joined by ``|
or |``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import online_migrate
from online_migrate import errors

PACKAGE: Final = Path(online_migrate.__file__).parent
ERRORS: Final = {
    name: kind.exit_code
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.OnlineMigrateError)
}
_OR: Final = " | or | "
_DEEPEST: Final = 4
"""names that are followed to their values: a name of a name of a name"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One construction of a finding, an error or a mistake."""

    where: str
    """the file within the package"""
    title: str
    """what it is sorted and found by: a code, an error's class"""
    message: str
    remedy: str

    def __str__(self) -> str:
        remedy = f"\n    → {self.remedy}" if self.remedy else ""
        return f"{self.title}   ({self.where})\n    {self.message}{remedy}\n"


_Names = dict[str, list[ast.expr]]
"""each name with the expressions that it can hold at a place of the program"""


def read_findings() -> list[Text]:
    """Every finding, by its code."""
    return _sorted(t for module in _modules() for t in module.findings())


def read_errors() -> list[Text]:
    """Every error, by its class and exit code."""
    return _sorted(t for module in _modules() for t in module.errors())


def read_mistakes() -> list[Text]:
    """Every mistake of a plan: what its readers note, and what its models refuse."""
    return _sorted(t for module in _modules() for t in module.mistakes())


def finding_codes() -> set[str]:
    """Every code that is written in the source, however it gets into a finding."""
    return {
        str(keyword.value.value)
        for module in _modules()
        for call, _ in module.calls
        for keyword in call.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }


def _sorted(texts: Iterator[Text]) -> list[Text]:
    return sorted(set(texts), key=lambda t: (t.title, t.where, t.message, t.remedy))


def _modules() -> Iterator[_Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield _Module(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8")))


class _Module:
    """The calls of one module, each with the names that it can see."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self._name = name
        self.calls = list(_calls_of(tree.body, {}))
        self._wrappers = {
            f.name: [a.arg for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)]
            for f in ast.walk(tree)
            if isinstance(f, ast.FunctionDef)
            and "code" in [a.arg for a in (*f.args.args, *f.args.kwonlyargs)]
        }

    def findings(self) -> Iterator[Text]:
        for call, names in self.calls:
            name = _name_of(call)
            if name in {"Finding", "Contradiction"}:
                given = _arguments(call, ())
            elif name in self._wrappers:
                given = _arguments(call, self._wrappers[name])
            else:
                continue
            for code in _alternatives(given.get("code"), names):
                if not code.startswith("{"):  # a wrapper's own parameter
                    severity = _severity(name, given.get("severity"), names)
                    yield self._text(f"{severity} {code}", given.get("fact"), given.get("remedy"), names)

    def errors(self) -> Iterator[Text]:
        for call, names in self.calls:
            name = _name_of(call)
            if name in ERRORS and self._name != "errors.py":
                given = _arguments(call, ("message",))
                yield self._text(
                    f"{name}, exit {ERRORS[name]}", given.get("message"), given.get("remedy"), names
                )

    def mistakes(self) -> Iterator[Text]:
        for call, names in self.calls:
            if ast.unparse(call.func).endswith("mistakes.add"):
                given = _arguments(call, ("loc", "text"))
                yield self._text("mistake", given.get("text"), given.get("remedy"), names)
            elif _name_of(call) == "ValueError" and self._name.startswith(("plan/", "operations/")):
                yield self._text("refused value", _arguments(call, ("message",)).get("message"), None, names)

    def _text(self, title: str, message: ast.expr | None, remedy: ast.expr | None, names: _Names) -> Text:
        return Text(
            where=self._name,
            title=title,
            message=_OR.join(_alternatives(message, names)),
            remedy=_OR.join(_alternatives(remedy, names)),
        )


def _calls_of(body: list[ast.stmt], names: _Names) -> Iterator[tuple[ast.Call, _Names]]:
    """Every call of some statements with what the names hold there; changes
    ``names`` as the statements do.
    """
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield from _calls_of(statement.body, dict(names))
            continue
        for field in ast.iter_child_nodes(statement):
            if isinstance(field, ast.expr | ast.keyword | ast.withitem):
                yield from ((call, dict(names)) for call in ast.walk(field) if isinstance(call, ast.Call))
        _assign(statement, names)
        ends = []
        for block in _blocks_of(statement):
            inner = dict(names)
            yield from _calls_of(block, inner)
            if not isinstance(block[-1] if block else None, ast.Return | ast.Raise | ast.Continue):
                ends.append(inner)
        for name in {n for end in ends for n in end}:
            held = [value for end in ends for value in end.get(name, [])]
            names[name] = list(dict.fromkeys(held))


def _blocks_of(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks of which one is run; an `if` without an `else` has an empty one."""
    if isinstance(statement, ast.If):
        return [statement.body, statement.orelse]
    if isinstance(statement, ast.Try):
        return [
            [*statement.body, *statement.orelse, *statement.finalbody],
            *(h.body for h in statement.handlers),
        ]
    if isinstance(statement, ast.Match):
        return [case.body for case in statement.cases]
    if isinstance(statement, ast.For | ast.While):
        return [statement.body, statement.orelse]
    return [statement.body] if isinstance(statement, ast.With) else []


def _assign(statement: ast.stmt, names: _Names) -> None:
    match statement:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                names.update({name: [its] for name, its in _pairs(target, value)})
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            names[name] = [value]
        case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
            names[name] = [ast.BinOp(before, ast.Add(), value) for before in names.get(name, [])]


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=False):
            yield from _pairs(one, its)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.IfExp):
        others = dict(_pairs(target, value.orelse))
        for name, its in _pairs(target, value.body):
            yield name, ast.IfExp(value.test, its, others.get(name, its))


def _alternatives(node: ast.expr | None, names: _Names, depth: int = 0) -> list[str]:
    """The texts that an expression can be; what is not known before the program runs
    stays ``{expression}``.
    """
    match node:
        case None:
            return []
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(_part(p) for p in parts)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            lefts = _alternatives(left, names, depth)
            rights = _alternatives(right, names, depth)
            return [a + b for a in lefts for b in rights]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_alternatives(body, names, depth), *_alternatives(orelse, names, depth)]
        case ast.Name(id=name) if depth < _DEEPEST and (found := names.get(name)):
            texts = [t for value in found for t in _alternatives(value, names, depth + 1)]
            return list(dict.fromkeys(texts))
        case _:
            return ["{" + ast.unparse(node) + "}"]


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "{" + ast.unparse(node.value if isinstance(node, ast.FormattedValue) else node) + "}"


def _arguments(call: ast.Call, positions: tuple[str, ...] | list[str]) -> Mapping[str, ast.expr]:
    named = {k.arg: k.value for k in call.keywords if k.arg is not None}
    return dict(zip(positions, call.args, strict=False)) | named


def _name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _severity(name: str, given: ast.expr | None, names: _Names) -> str:
    texts = [t.strip("{}").rpartition(".")[2].lower() for t in _alternatives(given, names)]
    known = [t for t in texts if t in {"stop", "warn", "ask", "info"}]
    unsaid = "stop" if name == "Contradiction" else name.strip("_")
    return "/".join(known) or (unsaid if given is None else "depends")
