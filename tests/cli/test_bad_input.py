"""A plan, a command line or an environment that is wrong: what was found, where, what to do next, and nothing
half done.
"""

from __future__ import annotations

import pytest

from online_migrate.journal.schema import VERSION
from online_migrate.postgres import connection
from tests.desk import TOKEN, Desk, Said, small_text


def assert_nothing_run(desk: Desk, before: object) -> None:
    assert not desk.has_journal()
    assert desk.end() == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("columns: [bot_id]}", "column: [bot_id]}", "unknown key 'column'; did you mean 'columns'?"),
        ("column: bot_id, type: integer, ", "type: integer, ", "the key column is missing"),
        (
            "columns: [bot_id]}",
            "columns: bot_id}",
            "(create_index), columns: expected a list, found 'bot_id'",
        ),
        ("add_column:", "add_colum:", "unknown operation 'add_colum'; did you mean 'add_column'?"),
        (("{tables: owned, column: bot_id,"
            " value"), "{tables: owners, column: bot_id, value", "no table set 'owners' in the plan"),
        ("duty: 50%", "duty: 900%", "must be from 0.0001% to 800%"),
        ("duty: 50%", "duty: 150%", ("duty 150% is more than 1 worker can do: give up to 100%, or more"
            " workers")),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_refused_before_any_connection(desk: Desk, old: str, new: str, words: str) -> None:
    """Every command that reads a plan names the line, the step and what was meant, and exits 2."""
    text = small_text()
    assert old in text
    desk.write(text.replace(old, new, 1))
    desk.dsn = "host=127.0.0.1 port=1"
    for command in ("check", "explain", "run", "status", "stop", "verify"):
        said = desk.call(command)
        assert said.code == 2, command
        assert words in said.err
        assert "plan.yaml:" in said.err
        assert "next: " in said.err


def test_a_plan_that_is_not_there_is_named(desk: Desk) -> None:
    """A mistyped path is reported with the plans in that folder."""
    (desk.folder / "plan.yaml").rename(desk.folder / "plans.yaml")
    said = desk.call("check")
    assert said.code == 2
    assert "plan.yaml: no such file; did you mean 'plans.yaml'?" in said.err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[transactions,", "[transaction,", ("\n    → correct the plan, or create the table; did you mean"
            " transactions?")),
        ("columns: [code]}", "columns: [cod]}", ("promocodes has no column cod\n    → correct plan.yaml:49:9;"
            " did you mean code?")),
        ("from: [name]", "from: [nam]", "promo_groups has no column nam"),
        ("value: <master.id>", "value: <master.ids>", "<master.ids> is unknown: ids is no key column"),
        ("table: bots", "table: bot", "table public.bot does not exist"),
    ],
)  # fmt: skip
def test_what_the_database_does_not_know_is_named_with_what_was_meant(
    desk: Desk, old: str, new: str, words: str
) -> None:
    """An unknown table or column stops the run with exit 3 before anything is
    written, all of them at once.
    """
    text = small_text()
    assert old in text
    desk.write(text.replace(old, new, 1))
    before = desk.end()
    said = desk.call("run")
    assert said.code == 3
    assert words in said.err, said.err
    assert "error: the database is not ready for the plan; nothing was run:" in said.err
    assert desk.call("check").code == 3
    assert_nothing_run(desk, before)


def test_a_secret_that_is_not_set_is_named_and_never_its_value(desk: Desk) -> None:
    """The variable's name, where to set it, exit 3; once its row is there it is asked for no more."""
    desk.environ = {}
    before = desk.end()
    said = desk.call("run")
    assert said.code == 3
    assert "secret telegram_token: environment variable MASTER_BOT_TOKEN is not set" in said.err
    assert "set it in the environment of `run`" in said.err
    assert_nothing_run(desk, before)
    desk.environ = {"MASTER_BOT_TOKEN": TOKEN}
    assert desk.call("run", "--through", "tables").code == 0
    desk.environ = {}
    assert desk.call("run", "--through", "columns").code == 0


def test_a_value_that_the_server_quotes_is_not_told(desk: Desk) -> None:
    """A secret that the server refuses in words of its own comes neither to the
    screen nor into the journal.
    """
    ddl = desk.folder / "bots.sql"
    ddl.write_text(ddl.read_text().replace("telegram_bot_token VARCHAR(255)", "telegram_bot_token INTEGER"))
    said = desk.call("run")
    assert said.code == 5
    assert 'invalid input syntax for type integer: "<secret.telegram_token>"' in said.err
    everything = desk.ask(
        "SELECT string_agg(x::text, '') FROM (SELECT s FROM online_migrate.step s UNION ALL SELECT NULL) AS"
        " t (x)"
    )
    reasons = desk.ask("SELECT string_agg(reason, '') FROM online_migrate.run")
    history = desk.ask("SELECT string_agg(fields::text, '') FROM online_migrate.history")
    assert TOKEN not in said.all + everything + reasons + history


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--through", "swop"), ("error: the plan has no stage swop\nnext: its stages: tables,"
            " columns, backfill")),
        (("run", "--approve", "swop"), "error: the plan has no stage swop"),
        (("run", "--approve", "columns"), "error: stage columns has no gate"),
        (("approve", "swop"), "error: the plan has no stage swop"),
        (("approve", "columns"), "error: stage columns has no gate"),
        (("approve", "swap"), "error: there is no run of plan multi_tenant in database om_test_"),
        (("explain", "--stage", "swop"), "error: the plan has no stage swop"),
        (("status",), "error: there is no run of plan multi_tenant in database om_test_"),
        (("verify",), "error: there is no run of plan multi_tenant in database om_test_"),
        (("stop",), "error: no runner of plan multi_tenant is running in database om_test_"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_asked_for_is_a_usage_error(
    desk: Desk, arguments: tuple[str, ...], words: str
) -> None:
    """Exit 2, and the database is as it was."""
    command, *rest = arguments
    said = desk.call(command, *rest)
    assert said.code == 2
    assert words in said.err
    assert not desk.has_journal()


def every_command(desk: Desk) -> dict[str, Said]:
    return {c: desk.call(c) for c in ("check", "explain", "run", "status", "stop", "verify")}


def test_no_server_is_said_by_every_command(desk: Desk) -> None:
    """Exit 8, what libpq said on one line, and where to look."""
    desk.dsn = "host=127.0.0.1 port=1 user=nobody dbname=shop"
    for command, said in every_command(desk).items():
        assert said.code == 8, command
        assert "error: no connection to the database: connection failed: " in said.err
        assert "Connection refused" in said.err
        assert "next: check host, port and that the server runs" in said.err


def test_a_dsn_that_cannot_be_read_is_not_repeated(desk: Desk) -> None:
    """A mistyped DSN may hold a password: the message shows what a DSN looks like, not what was given."""
    desk.dsn = "host 127.0.0.1 password=very-secret"
    for command, said in every_command(desk).items():
        assert said.code == 2, command
        assert "error: the DSN cannot be read" in said.err
        assert "very-secret" not in said.all


def test_an_old_server_is_refused_by_every_command(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 3 with both versions before anything is written, on whatever way the server is reached."""
    before = desk.end()
    monkeypatch.setattr(connection, "OLDEST_SERVER", 990000)
    for command, said in every_command(desk).items():
        assert said.code == 3, command
        assert "; 14.4 is the oldest supported one" in said.err
        assert "next: upgrade the server" in said.err
    assert_nothing_run(desk, before)


def test_the_plan_s_own_requirement_is_checked(desk: Desk) -> None:
    """A plan that needs a newer server than this is stopped by check and by run."""
    desk.write(small_text().replace(">=14.4", ">=99"))
    said = desk.call("run")
    assert said.code == 3
    assert "the plan requires >=99" in said.err
    assert not desk.has_journal()


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_a_journal_of_another_version_is_left_alone(desk: Desk, version: int) -> None:
    """Exit 7 with both versions named; the unreadable state is kept."""
    assert desk.call("run", "--through", "tables").code == 0
    desk.run_sql(f"UPDATE online_migrate.version SET version = {version}")
    for command, said in every_command(desk).items():
        assert said.code == 7, command
        assert (
            f"the journal in schema online_migrate has version {version}; this program writes version"
            f" {VERSION}" in said.err
        )
        assert "next: " in said.err
    assert desk.ask("SELECT state FROM online_migrate.run") == "stopped"


def test_a_schema_of_that_name_that_is_not_ours_is_left_alone(desk: Desk) -> None:
    """A schema online_migrate that is not the journal is not written to."""
    desk.run_sql("CREATE SCHEMA online_migrate")
    said = desk.call("run")
    assert said.code == 3
    assert "schema online_migrate exists and is not our journal" in said.err
    assert "next: rename or drop that schema" in said.err
