"""A right plan: what the loader makes of it, and that nothing but PlanError comes out of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online_migrate.errors import PlanError
from online_migrate.operations.registry import OPERATIONS as REAL_OPERATIONS
from online_migrate.plan.expand import expand, listed_tables
from online_migrate.plan.load import load, load_file
from online_migrate.plan.model import Phase
from online_migrate.plan.operation_type import OperationType
from tests.plan.standins import OPERATIONS, load_text

PLANS = Path(__file__).parents[2] / "plans"
MULTI_TENANT = PLANS / "multi_tenant.yaml"

SMALL = """\
plan: small
table_sets:
  owned: {tables: [users, tickets], also: {referencing: users}}
stages:
  - stage: columns
    steps:
      - add_column: {tables: owned, column: bot_id, type: integer}
  - stage: rest
    gate: {approval: it is night}
    pace: {batch_target: 20ms, duty: 25%, max_rows: 1000}
    hold_when: {standby_lag: 64MiB, oldest_snapshot: 10min}
    steps:
      - backfill: {tables: owned, column: bot_id, value: 1}
      - analyze: {tables: [bots, users]}
      - set_not_null: {table: users, column: bot_id}
"""


@pytest.mark.parametrize("operations", [OPERATIONS, REAL_OPERATIONS], ids=["stand-ins", "registry"])
def test_the_plan_of_the_shop_loads(operations: Mapping[str, OperationType]) -> None:
    """The first plan that anyone runs is right, with its stages in the design's order and phases."""
    plan = load_file(MULTI_TENANT, operations)
    assert plan.name == "multi_tenant"
    assert [(s.name, s.phase.value) for s in plan.stages[:-1]] == [
        ("tables", "expand"),
        ("columns", "expand"),
        ("backfill", "backfill"),
        ("indexes", "expand"),
        ("uniques", "expand"),
        ("constraints", "contract"),
        ("swap", "contract"),
    ]
    assert [s.name for s in plan.stages if s.gate] == ["swap"]
    assert len(plan.table_sets["owned"].tables) == 30


def test_a_plan_is_what_its_text_says() -> None:
    """Every value arrives in its unit, every step knows its line, and what is not said is the default."""
    plan = load_text(SMALL)
    assert (plan.schema, plan.requires.postgres, plan.path) == ("public", ">=14.4", Path("shop.yaml"))
    columns, rest = plan.stages
    assert columns.gate is None
    assert (columns.pace.batch_target, columns.pace.duty) == (0.05, 0.5)
    assert columns.hold_when.standby_lag is None
    assert rest.gate is not None
    assert rest.gate.approval == "it is night"
    assert (rest.pace.batch_target, rest.pace.duty, rest.pace.max_rows) == (0.02, 0.25, 1000)
    assert (rest.hold_when.standby_lag, rest.hold_when.oldest_snapshot) == (64 * 2**20, 600.0)
    assert [(s.title, s.where) for s in rest.steps] == [
        ("backfill bot_id", "shop.yaml:13:9"),
        ("analyze", "shop.yaml:14:9"),
        ("set_not_null bot_id", "shop.yaml:15:9"),
    ]


def test_the_phase_of_a_stage_is_the_latest_of_its_operations_unless_it_says_so() -> None:
    """`contract` says that the current release may stop working after this stage."""
    assert [s.phase for s in load_text(SMALL).stages] == [Phase.EXPAND, Phase.CONTRACT]
    said = load_text(SMALL.replace("- stage: columns", "- stage: columns\n    phase: contract"))
    assert said.stages[0].phase is Phase.CONTRACT


def test_steps_run_step_major_over_the_tables_of_a_set() -> None:
    """All tables, then the next step: the order that the run, the journal and explain share."""
    plan = load_text(SMALL)
    steps = expand(plan, {**listed_tables(plan), "owned": ("users", "tickets", "found")}, OPERATIONS)
    assert [str(s) for s in steps] == [
        "columns / add_column bot_id / users",
        "columns / add_column bot_id / tickets",
        "columns / add_column bot_id / found",
        "rest / backfill bot_id / users",
        "rest / backfill bot_id / tickets",
        "rest / backfill bot_id / found",
        "rest / analyze / bots",
        "rest / analyze / users",
        "rest / set_not_null bot_id / users",
    ]
    assert len({s.key for s in steps}) == len(steps)


def test_anchors_and_aliases_are_read_and_cannot_fill_the_memory() -> None:
    """Plain YAML works as people know it; an alias of aliases of aliases is refused, not expanded."""
    shared = SMALL.replace("[bots, users]", "&both [bots, users]") + (
        "      - drop_default: {tables: *both, column: bot_id}\n"
    )
    assert load_text(shared).stages[1].steps[3].params.model_dump()["tables"] == ["bots", "users"]
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    with pytest.raises(PlanError, match="more than 100,000 values"):
        load_text(bomb)


def test_a_plan_runs_no_code_and_reads_no_other_file(tmp_path: Path) -> None:
    """An untrusted plan can be loaded safely: tags are refused, nothing is constructed."""
    victim = tmp_path / "made"
    for tag in ("!!python/object/apply:os.system", "!!python/name:os.system", "!include"):
        with pytest.raises(PlanError, match="a plan has no tags"):
            load_text(f"{SMALL}requires: {tag} ['touch {victim}']\n")
    assert not victim.exists()


@pytest.mark.parametrize("text", ["2001-01-01", "2001-13-45", "=", "<<", "0x", "12:30:45", "no"])
def test_what_looks_like_something_else_stays_the_text_that_it_is(text: str) -> None:
    """A value for a row reaches the database as it was written, be it a date or the country of Norway."""
    step = f"      - ensure_row: {{id: a, table: b, where: {{c: {text}}}, values: {{}}}}\n"
    params = load_text(SMALL + step).stages[1].steps[3].params
    assert params.model_dump()["where"] == {"c": text}


def mangled() -> st.SearchStrategy[str]:
    """A right plan with pieces cut out, doubled, swapped or replaced."""
    source = MULTI_TENANT.read_text()
    words = sorted(set(re.findall(r"\S+|\n +", source)))
    junk = st.one_of(
        st.text(max_size=8),
        st.sampled_from([*words, "\t", "&a ", "*a", "? ", "!!int ", "- ", "{", "[", "|\n"]),
    )
    edit = st.tuples(st.integers(0, len(source)), st.integers(0, 60), junk)

    def apply(edits: list[tuple[int, int, str]]) -> str:
        text = source
        for at, length, piece in edits:
            text = text[:at] + piece + text[at + length :]
        return text

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def assert_only_plan_errors(text: str) -> None:
    """Load the text: it is a plan, or the error says where it is not."""
    error: PlanError | None = None
    try:
        load(text, REAL_OPERATIONS, path=MULTI_TENANT)
    except PlanError as caught:
        error = caught
    if error is not None:
        assert all("multi_tenant" in line for line in error.message.splitlines())
        assert error.remedy


@settings(deadline=None)  # a busy machine is no defect of the loader
@given(mangled())
def test_a_mangled_plan_raises_nothing_but_plan_errors(text: str) -> None:
    """However a plan is broken, its author gets a message about the plan, never a traceback."""
    assert_only_plan_errors(text)


@settings(deadline=None)  # a busy machine is no defect of the loader
@given(st.text())
def test_any_text_raises_nothing_but_plan_errors(text: str) -> None:
    """A file that is not a plan at all is reported as such."""
    assert_only_plan_errors(text)


TREES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from(["owned", "<table>", "<a.b>", "50ms", ""])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["plan", "stages", "steps", "stage", "table_sets", "tables", *REAL_OPERATIONS]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=30,
)


@settings(deadline=None)  # a busy machine is no defect of the loader
@given(TREES)
def test_any_data_raises_nothing_but_plan_errors(tree: object) -> None:
    """Any shape of mapping, list and value in any place is reported as a mistake of the plan."""
    assert_only_plan_errors(as_flow(tree))


def as_flow(tree: object) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k}: {as_flow(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(as_flow, tree)) + "]"
    return "null" if tree is None else repr(tree).lower() if isinstance(tree, bool | int) else f'"{tree}"'
