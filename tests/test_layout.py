"""The packages' order, and that what guards it bites."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import online_migrate
from online_migrate.operations.registry import OPERATIONS

ROOT = Path(__file__).parent.parent
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint_imports(config: Path, source: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT_IMPORTS), "--no-cache", "--config", str(config)]
    environ = {"PYTHONPATH": str(source)}
    return subprocess.run(command, env=environ, cwd=source, capture_output=True, text=True, check=False)


def test_the_order_of_the_packages_holds() -> None:
    """Each package imports only from those below it, so each can be read and tested without those above."""
    result = lint_imports(ROOT / "pyproject.toml", ROOT / "src")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param("journal/wrong.py", "import online_migrate.engine", id="upwards"),
        pytest.param("postgres/wrong.py", "import online_migrate.plan", id="sideways"),
        pytest.param("helpers/__init__.py", "", id="a drawer without a name"),
        pytest.param("engine/wrong.py", "import rich", id="rich below observe"),
        pytest.param("observe/wrong.py", "import click", id="click outside cli"),
        pytest.param(
            "observe/page/wrong.py",
            "import online_migrate.observe.prometheus",
            id="products of observe of each other",
        ),
        pytest.param("plan/wrong.py", "import psycopg", id="a plan that does I/O"),
        pytest.param("backfill/pacer.py", "import psycopg", id="a pacer that does I/O"),
        pytest.param(
            "operations/wrong.py", "import online_migrate.operations.other", id="operations of each other"
        ),
    ],
)
def test_a_breach_of_the_order_is_found(tmp_path: Path, path: str, line: str) -> None:
    """No contract can be broken by mistake: each kind of breach fails the build."""
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    package = source / "online_migrate"
    (package / "operations" / "other.py").touch()
    (package / path).parent.mkdir(exist_ok=True)
    with (package / path).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(ROOT / "pyproject.toml", source)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_the_package_is_typed_and_has_one_version() -> None:
    """Users' type checkers see our types, and the version is written in one place."""
    package = Path(online_migrate.__file__).parent
    assert (package / "py.typed").exists()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"[{online_migrate.__version__}]" in changelog


NAMES = frozenset(OPERATIONS)


def guesses_in(source: str) -> list[str]:
    """Lines that know an operation by its name, or guess at its parameters."""
    tests = (_compares_a_name, _matches_a_name, _guesses_at_params, _imports_an_operation)
    nodes = ast.walk(ast.parse(source))
    return [f"{n.lineno}: {ast.unparse(n)}" for n in nodes if any(test(n) for test in tests)]  # type: ignore[attr-defined]  # these nodes have lines


def _compares_a_name(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    below = [n for part in (node.left, *node.comparators) for n in ast.walk(part)]
    texts = {n.value for n in below if isinstance(n, ast.Constant)}
    return bool(texts & NAMES) or any(isinstance(n, ast.Attribute) and n.attr == "operation" for n in below)


def _matches_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Match) and "operation" in ast.unparse(node.subject)


def _guesses_at_params(node: ast.AST) -> bool:
    is_guess = isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "hasattr"}
    return is_guess and "params" in ast.unparse(node.args[0]).lower()  # type: ignore[attr-defined]  # a call


def _imports_an_operation(node: ast.AST) -> bool:
    package, _, name = (node.module or "" if isinstance(node, ast.ImportFrom) else "").rpartition(".")
    return package == "online_migrate.operations" and name in NAMES


def test_nobody_knows_an_operation_by_its_name() -> None:
    """Operations say what they change, by effects; only the registry knows which operations there are."""
    package = ROOT / "src" / "online_migrate"
    registry = package / "operations" / "registry.py"
    found = [
        f"{path.relative_to(package)}:{guess}"
        for path in sorted(package.rglob("*.py"))
        if path != registry
        for guess in guesses_in(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "x = step.spec.operation == 'backfill'",
        "x = name in ('create_tables', 'ensure_row')",
        "x = kind == 'analyze'",
        "x = getattr(step.spec.params, 'column', None)",
        "x = hasattr(params, 'tables')",
        "from online_migrate.operations.backfill import BackfillParams",
        "match step.operation:\n    case 'backfill': pass",
    ],
)
def test_a_guess_at_an_operation_is_found(line: str) -> None:
    """Each way to know an operation by its name fails the test above."""
    assert len(guesses_in(line)) == 1
