"""The messages of a wrong plan, read as an operator would: what, where, what next."""

from __future__ import annotations

from pathlib import Path

import pytest

from online_migrate.errors import PlanError, PlanErrors
from online_migrate.plan.load import load_file
from tests.plan.standins import OPERATIONS, load_text

HEAD = """\
plan: shop
secrets:
  token: {env: TOKEN}
table_sets:
  owned: {tables: [users, tickets]}
stages:
  - stage: tables
    steps:
      - ensure_row: {id: master, table: bots, where: {is_master: true}, values: {token: <secret.token>}}
"""


def with_steps(*steps: str) -> str:
    return HEAD + "".join(f"      - {step}\n" for step in steps)


def message_of(text: str) -> str:
    with pytest.raises(PlanError) as caught:
        load_text(text)
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value.message


def case(name: str, text: str, *lines: str) -> object:
    return pytest.param(text, "\n".join(f"shop.yaml:{line}" for line in lines), id=name)


NOT_SHOWN = "another kind of value (not shown: it may be secret)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        case("empty", "", "1:1: the plan is empty"),
        case("only comments", "# later\n", "1:1: the plan is empty"),
        case("a list", "- a\n", "1:1: expected a mapping (key: value), found a list"),
        case("text", "hello", "1:1: expected a mapping (key: value), found 'hello'"),
        case(
            "an open bracket",
            "plan: shop\nstages: [\n",
            "3:1: this is not valid YAML: expected the node content, but found '<stream end>'"
            " (while parsing a flow node, line 3)",
        ),
        case(
            "a tab",
            "plan: shop\n\tstages: 3\n",
            "2:1: this is not valid YAML: found character '\\t' that cannot start any token",
        ),
        case(
            "two documents",
            "plan: a\n---\nplan: b\n",
            "2:1: this is not valid YAML: but found another document"
            " (expected a single document in the stream, line 1)",
        ),
        case(
            "a control character",
            "plan: a\nb: \x01\n",
            "2: this is not valid YAML: it must not contain the character U+0001",
        ),
        case("an alias within itself", "plan: &a [*a]\n", "1:7: an alias (*) is inside its own anchor (&)"),
        case(
            "tags",
            f"{HEAD}locks: !!python/object:os.system x\nschema: !env y\n",
            "10:8: a plan has no tags; found !!python/object:os.system",
            "11:9: a plan has no tags; found !env",
        ),
        case("a key twice", f"{HEAD}plan: again\n", "10:1: duplicate key 'plan'; first on line 1"),
        case("a list as key", f"{HEAD}[a]: 3\n", "10:1: a key must be a plain word"),
        case(
            "no finite number",
            f"{HEAD}locks: {{attempts: .inf}}\n",
            "10:19: '.inf' is not a valid number; put a text in quotes",
        ),
    ],
)
def test_what_is_no_plan_is_told_by_its_line(text: str, expected: str) -> None:
    """The message for a broken file says where the file is wrong, not where the parser raised."""
    assert message_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        case("missing", "plan: shop\n", "1:1: the key stages is missing"),
        case(
            "missing in a stage",
            "plan: shop\nstages:\n  - steps:\n      - analyze: {table: users}\n",
            "3:5: stage 1: the key stage is missing",
        ),
        case("unknown", f"{HEAD}lock: {{attempts: 3}}\n", "10:1: unknown key 'lock'; did you mean 'locks'?"),
        case(
            "unknown, like none",
            f"{HEAD}1: 2\n",
            "10:1: unknown key '1'; valid: plan, requires, schema, secrets, table_sets, stays_global, hours,"
            " locks, stages",
        ),
        case(
            "unknown deep down",
            f"{HEAD}    pace: {{batch_targt: 5ms}}\n",
            "10:12: stage tables, pace: unknown key 'batch_targt'; did you mean 'batch_target'?",
        ),
        case(
            "unknown, so another is missing",
            HEAD.replace("tables: [users", "table: [users"),
            "5:11: table_sets.owned: unknown key 'table'; did you mean 'tables'?",
        ),
        case(
            "number for text",
            HEAD.replace("plan: shop", "plan: 7"),
            "1:7: plan: expected text, found the number 7; put it in quotes",
        ),
        case(
            "text for list",
            HEAD.replace("[users, tickets]", "users"),
            "5:19: table_sets.owned.tables: expected a list, found 'users'",
        ),
        case(
            "number in list",
            HEAD.replace("[users, tickets]", "[users, 3]"),
            "5:27: table_sets.owned.tables: expected text, found the number 3; put it in quotes",
        ),
        case(
            "mapping for list",
            "plan: shop\nstages: {a: 1}\n",
            "2:9: stages: expected a list, found a mapping",
        ),
        case("no stages", "plan: shop\nstages: []\n", "2:9: stages: may not be empty"),
        case(
            "no steps",
            "plan: shop\nstages:\n  - {stage: a, steps: []}\n",
            "3:23: stage a, steps: may not be empty",
        ),
        case(
            "two stages of one name",
            f"{HEAD}  - stage: tables\n    steps:\n      - analyze: {{table: users}}\n",
            "10:5: stage tables: stage 1 of the plan has this name too; give each its own",
        ),
        case(
            "names",
            HEAD.replace("owned:", "Owned:").replace("stage: tables", "stage: My Tables"),
            "5:3: table_sets: expected a lower-case letter, then lower-case letters, digits and _; found"
            " 'Owned'",
            "7:12: stage My Tables, stage: expected a lower-case letter, then lower-case letters, digits and"
            " _;"
            " found 'My Tables'",
        ),
        case(
            "phase",
            f"{HEAD}    phase: contrakt\n",
            "10:12: stage tables, phase: found 'contrakt'; did you mean 'contract'?",
        ),
        case(
            "gate",
            f"{HEAD}    gate: me\n",
            "10:11: stage tables, gate: expected a mapping (key: value), found 'me'",
        ),
        case(
            "version as number",
            f"{HEAD}requires: {{postgres: 15}}\n",
            "10:22: requires.postgres: expected text, found the number 15; put it in quotes",
        ),
        case(
            "version without >=",
            f'{HEAD}requires: {{postgres: "15"}}\n',
            "10:22: requires.postgres: expected the form >=14.4; found '15'",
        ),
        case(
            "durations",
            f"{HEAD}locks: {{hold_cap: 5 parsecs, exposure: 12, lock_wait: 0s, long_statement: 99d}}\n",
            "10:19: locks.hold_cap: expected the form 500ms; units: us, ms, s, min, h, d; found '5 parsecs'",
            "10:40: locks.exposure: expected the form 500ms; units: us, ms, s, min, h, d; found the number"
            " 12",
            "10:55: locks.lock_wait: must be from 1us to 24d; found '0s'",
            "10:75: locks.long_statement: must be from 1us to 24d; found '99d'",
        ),
        case(
            "size and share",
            f"{HEAD}    hold_when: {{standby_lag: 64, wal_since_checkpoint: 150%}}\n",
            "10:30: stage tables, hold_when.standby_lag: expected the form 64MiB;"
            " units: B, kB, MB, GB, KiB, MiB, GiB, TiB; found the number 64",
            "10:56: stage tables, hold_when.wal_since_checkpoint: must be from 0.0001% to 100%; found '150%'",
        ),
        case(
            "a query that takes its time",
            f"{HEAD}    hold_when: {{queries: [{{name: queue, sql: SELECT 1, limit: 5, timeout: 1min}}]}}\n",
            "10:27: stage tables, hold_when.queries: queue: timeout 1min is more than 3s: no batch runs"
            " during the query,"
            " and its snapshot keeps dead rows; query a small table that another job keeps up to date",
        ),
        case(
            "numbers",
            f"{HEAD}locks: {{attempts: 0}}\n",
            "10:19: locks.attempts: must be at least 1, found the number 0",
        ),
        case(
            "a table twice",
            HEAD.replace("[users, tickets]", "[users, tickets, users]"),
            "5:10: table_sets.owned: tables names users twice",
        ),
        case(
            "a table with its schema",
            HEAD.replace("[users, tickets]", "[public.users]"),
            "5:20: table_sets.owned.tables: name the table without its schema, which is the plan's key"
            " `schema`;"
            " found 'public.users'",
        ),
        case(
            "exclude without also",
            HEAD.replace("[users, tickets]", "[users], exclude: [tickets]"),
            "5:10: table_sets.owned: exclude removes tables that `also` finds, but the set has no `also`",
        ),
        case(
            "min above max",
            f"{HEAD}    pace: {{min_rows: 10, max_rows: 5}}\n",
            "10:11: stage tables, pace: min_rows 10 is more than max_rows 5",
        ),
    ],
)
def test_a_wrong_key_or_value_is_told_with_what_was_meant(text: str, expected: str) -> None:
    """A typo costs one look at a message: it names the line, the key, what was found and the nearest valid
    word.
    """
    assert message_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        case(
            "unknown operation",
            with_steps("add_colum: {tables: owned}"),
            "10:9: stage tables, step 2 (add_colum): unknown operation 'add_colum'; did you mean"
            " 'add_column'?",
        ),
        case(
            "operation like none",
            with_steps("frobnicate: {tables: owned}"),
            "10:9: stage tables, step 2 (frobnicate): unknown operation 'frobnicate'; valid: "
            + ", ".join(OPERATIONS),
        ),
        case(
            "two operations",
            with_steps("analyze: {tables: owned}\n        backfill: {tables: owned}"),
            "10:9: stage tables, step 2: a step is one operation, found analyze, backfill;"
            " start each with its own dash",
        ),
        case(
            "parameters not indented",
            with_steps("analyze:\n        tables: owned"),
            "10:9: stage tables, step 2: indent tables further: they belong to analyze,"
            " but are written beside it",
        ),
        case(
            "no parameters",
            with_steps("analyze"),
            "10:9: stage tables, step 2: 'analyze' needs its parameters: write `- analyze: {…}`",
        ),
        case(
            "nothing after the colon",
            with_steps("analyze:"),
            "10:9: stage tables, step 2 (analyze): expected a mapping of its parameters (table, tables),"
            " found nothing",
        ),
        case(
            "text where there is no shorthand",
            with_steps("analyze: users"),
            "10:18: stage tables, step 2 (analyze): expected a mapping of its parameters (table, tables),"
            " found 'users'",
        ),
        case(
            "no step at all",
            with_steps("hello"),
            "10:9: stage tables, step 2: a step is `- operation: {parameters}`, found 'hello'",
        ),
        case(
            "unknown parameter",
            with_steps("create_index: {tables: owned, name: x, colums: [a]}"),
            "10:48: stage tables, step 2 (create_index): unknown key 'colums'; did you mean 'columns'?",
        ),
        case(
            "types of parameters",
            with_steps("create_index: {tables: 3, name: x, columns: [a, 4], unique: yes}"),
            "10:32: stage tables, step 2 (create_index), tables: expected text or a list, found the number 3;"
            " put it in quotes",
            "10:57: stage tables, step 2 (create_index), columns: expected text, found the number 4;"
            " put it in quotes",
            "10:69: stage tables, step 2 (create_index), unique: expected true or false, found 'yes'",
        ),
        case(
            "a choice",
            with_steps("add_foreign_key: {table: users, column: b, references: bots.id, on_delete: cascad}"),
            "10:84: stage tables, step 2 (add_foreign_key), on_delete: found 'cascad'; did you mean"
            " 'cascade'?",
        ),
        case(
            "table set",
            with_steps("analyze: {tables: ownd}"),
            "10:27: stage tables, step 2 (analyze), tables: no table set 'ownd' in the plan; did you mean"
            " 'owned'?",
        ),
        case(
            "table and tables",
            with_steps("analyze: {tables: owned, table: users}"),
            "10:18: stage tables, step 2 (analyze): give exactly one of table and tables",
        ),
        case(
            "an empty list of tables",
            with_steps("analyze: {tables: []}"),
            "10:27: stage tables, step 2 (analyze), tables: names no table, so the step would do nothing",
        ),
        case(
            "a table twice in a list",
            with_steps("analyze: {tables: [users, tickets, users]}"),
            "10:27: stage tables, step 2 (analyze), tables: names users twice",
        ),
        case(
            "a reason of the operation's own",
            with_steps("ensure_row: {id: second, table: users, where: {}, values: {}}"),
            "10:21: stage tables, step 2 (ensure_row): where is empty: it would be every row",
        ),
        case(
            "two steps of one title",
            with_steps(
                "create_index: {table: users, name: x, columns: [a]}",
                "create_index: {table: tickets, name: x, columns: [a]}",
            ),
            "11:9: stage tables, step 3 (create_index): step 2 of this stage is 'create_index x' too;"
            " the journal identifies steps by this title: name both tables in one step (tables: […]), or"
            " move one to another stage",
        ),
        case(
            "a file that is not there",
            with_steps("create_tables: nowhere.sql"),
            "10:24: stage tables, step 2 (create_tables): the file nowhere.sql cannot be read:"
            " No such file or directory; the path is relative to the plan's folder",
        ),
    ],
)
def test_a_wrong_step_is_told_by_stage_and_number(text: str, expected: str) -> None:
    """In a plan of forty steps the message alone says which one to correct, and how."""
    assert message_of(text) == expected


def test_without_table_sets_the_way_to_name_one_table_is_told() -> None:
    """`tables: users` is a likely mistake in a plan without sets: the message says `table: users`."""
    text = "plan: shop\nstages:\n  - stage: a\n    steps:\n      - analyze: {tables: users}\n"
    assert message_of(text) == (
        "shop.yaml:5:27: stage a, step 1 (analyze), tables: no table set 'users' in the plan;"
        " for the table of that name write `table: users`"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        case(
            "unknown id",
            with_steps("backfill: {tables: owned, column: bot_id, value: <masterr.id>}"),
            "10:58: stage tables, step 2 (backfill), value: <masterr.id> is not defined;"
            " did you mean '<master.id>'?",
        ),
        case(
            "no column",
            with_steps("backfill: {tables: owned, column: bot_id, value: <master>}"),
            "10:58: stage tables, step 2 (backfill), value: <master> names no column;"
            " <master.id> is the column id of that row",
        ),
        case(
            "used too early",
            HEAD.replace(
                "    steps:\n",
                "    steps:\n      - backfill: {tables: owned, column: bot_id, value: <master.id>}\n",
            ),
            "9:58: stage tables, step 1 (backfill), value: <master.id> is used above the step that ensures"
            " the row 'master'; move this step below that one",
        ),
        case(
            "secret not declared",
            HEAD.replace("<secret.token>", "<secret.tokn>"),
            "9:89: stage tables, step 1 (ensure_row), values.token: <secret.tokn> names no secret of the"
            " plan's"
            " key `secrets`; did you mean 'token'?",
        ),
        case(
            "form of a secret",
            HEAD.replace("<secret.token>", "<secret.token.sha25>"),
            "9:89: stage tables, step 1 (ensure_row), values.token: <secret.token.sha25>: a secret has no"
            " form"
            " 'sha25'; did you mean 'sha256'?",
        ),
        case(
            "within a name",
            with_steps("create_index: {tables: owned, name: idx_<tabel>_x, columns: [a]}"),
            "10:45: stage tables, step 2 (create_index), name: <tabel> inside a text: only <table> may be"
            " part"
            " of a text; write other references alone; did you mean 'table'?",
        ),
        case(
            "a secret within prose",
            HEAD.replace("<secret.token>", "the <secret.token> one"),
            "9:89: stage tables, step 1 (ensure_row), values.token: <secret.token> inside a text: only"
            " <table>"
            " may be part of a text; write other references alone",
        ),
        case(
            "an id that is taken",
            HEAD.replace("id: master", "id: secret"),
            "9:9: stage tables, step 1 (ensure_row): the id 'secret' is reserved: <secret> has a meaning of"
            " its own",
        ),
        case(
            "an id that nobody can write",
            HEAD.replace("id: master", "id: the.master"),
            "9:9: stage tables, step 1 (ensure_row): the id 'the.master' cannot be referenced;"
            " use lower-case letters, digits and _",
        ),
        case(
            "an id twice",
            f"{HEAD}  - stage: more\n    steps:\n"
            "      - ensure_row: {id: master, table: users, where: {a: 1}, values: {}}\n",
            "12:9: stage more, step 1 (ensure_row): a step above has the id 'master' too,"
            " so <master.id> would be ambiguous; rename one of them",
        ),
    ],
)
def test_a_reference_that_stands_for_nothing_is_told(text: str, expected: str) -> None:
    """No run stops in its middle over a reference that could have been seen to be wrong in the plan."""
    assert message_of(text) == expected


def test_a_message_is_one_line_that_no_terminal_acts_on() -> None:
    """A plan cannot send control characters to the terminal that shows its mistakes."""
    message = message_of(HEAD + '"a\\e[2Jb\\nc": 1\n')
    assert message.startswith(r"shop.yaml:10:1: unknown key 'a\x1b[2Jb\nc'; valid: ")


def test_brackets_in_prose_are_left_alone() -> None:
    """A row may hold `<b>Welcome</b> to us` or `a < b`: that is no reference."""
    for value in ("<b>Welcome</b> to us", "a < b > c", "<b>x</b>!"):
        plan = load_text(HEAD.replace("<secret.token>", f'"{value}"'))
        assert value in plan.stages[0].steps[0].params.model_dump_json()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        case(
            "instead of its source",
            HEAD.replace("{env: TOKEN}", "12345:ABCDEF"),
            f"3:10: secrets.token: expected a mapping (key: value), found {NOT_SHOWN}",
        ),
        case(
            "as a variable's name",
            HEAD.replace("TOKEN}", '"12345:ABCDEF"}'),
            f"3:16: secrets.token.env: expected the name of an environment variable; found {NOT_SHOWN}",
        ),
        case(
            "under a wrong key",
            HEAD.replace("env: TOKEN", 'value: "12345:ABCDEF"'),
            "3:11: secrets.token: unknown key 'value'; valid: env, file, generate, bytes",
        ),
        case(
            "beside its source",
            HEAD.replace("env: TOKEN", 'env: TOKEN, file: "12345:ABCDEF"'),
            "3:10: secrets.token: give exactly one of env, file, generate",
        ),
        case(
            "bytes of what is not made",
            HEAD.replace("env: TOKEN", "env: TOKEN, bytes: 64"),
            "3:10: secrets.token: bytes is the length of a generated secret: use it with generate only",
        ),
    ],
)
def test_a_secret_written_into_a_plan_is_not_repeated(text: str, expected: str) -> None:
    """A token that is pasted where its source belongs does not appear in the log as well."""
    message = message_of(text)
    assert message == expected
    assert "ABCDEF" not in message


def test_all_mistakes_are_told_at_once_in_the_order_of_the_lines() -> None:
    """A plan is corrected in one go, not one message at a time."""
    text = (
        with_steps("analyze: {tables: ownd}", "frob: {}").replace("plan: shop", "plan: Shop") + "lock: {}\n"
    )
    with pytest.raises(PlanErrors) as caught:
        load_text(text)
    wheres = [error.where for error in caught.value.errors]
    assert wheres == ["shop.yaml:1:7", "shop.yaml:10:27", "shop.yaml:11:9", "shop.yaml:12:1"]
    assert caught.value.message.splitlines() == [error.message for error in caught.value.errors]


def test_a_mistake_in_an_sql_file_is_told_by_its_own_line(tmp_path: Path) -> None:
    """The line to correct is in the SQL file; the message also says which step names the file."""
    (tmp_path / "bots.sql").write_text("CREATE TABLE a (id int);\n\nCREATE TABEL b (id int);\n")
    plan = tmp_path / "shop.yaml"
    plan.write_text(with_steps("create_tables: bots.sql"))
    with pytest.raises(PlanError) as caught:
        load_file(plan, OPERATIONS)
    assert caught.value.message.replace(f"{tmp_path}/", "") == (
        'bots.sql:3:8: PostgreSQL cannot parse this: syntax error at or near "TABEL"'
        " (named by stage tables, step 2 (create_tables), shop.yaml:10:24)"
    )


def test_a_missing_sql_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    """The typo in a file's name is seen at once, by the step's line in the plan."""
    (tmp_path / "bots.sql").write_text("CREATE TABLE a (id int);")
    plan = tmp_path / "shop.yaml"
    plan.write_text(with_steps("create_tables: bot.sql"))
    with pytest.raises(PlanError) as caught:
        load_file(plan, OPERATIONS)
    assert caught.value.message.endswith(
        "shop.yaml:10:24: stage tables, step 2 (create_tables): the file bot.sql cannot be read:"
        " No such file or directory; did you mean 'bots.sql'?"
    )


def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path) -> None:
    """A wrong path, a folder, a binary file: each message says what was found."""
    (tmp_path / "shop.yaml").write_text(HEAD)
    (tmp_path / "binary.yaml").write_bytes(b"plan: shop\n\xff\xfe")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 10_000_001)
    expected = {
        "shpo.yaml": "shpo.yaml: no such file; did you mean 'shop.yaml'?",
        ".": ": cannot be read: Is a directory",
        "binary.yaml": "binary.yaml:2: this is not UTF-8 text",
        "huge.yaml": "huge.yaml: larger than 10,000,000 bytes: not a plan",
    }
    for name, end in expected.items():
        with pytest.raises(PlanError) as caught:
            load_file(tmp_path / name, OPERATIONS)
        assert caught.value.message.endswith(end)
        assert caught.value.remedy
