"""ensure_row: one row, a token that is shown before it counts, and secrets that go nowhere else."""

from __future__ import annotations

import hashlib
import threading

import pytest

from online_migrate.demo.shop import create_shop
from online_migrate.errors import PlanError, UsageError, VerificationFailed
from online_migrate.operations.contract.base import State
from tests.operations.cases import A_MASTER, MASTER_PLAN, TOKEN
from tests.operations.conftest import OpenSite
from tests.operations.site import PLANS, Site, connect, open_site, plan_of
from tests.servers import start_own_server

ENVIRON = {"MASTER_BOT_TOKEN": TOKEN}
ROW = "SELECT telegram_bot_token, api_token, api_token_hash FROM bots WHERE is_master"
JOURNAL = "SELECT relname FROM pg_class WHERE relnamespace = 'online_migrate'::regnamespace AND relkind = 'r'"
REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no bot with token % today', NEW.telegram_bot_token; END $$;"""


class Shown:
    """Where generated secrets go; ``rows_then`` is what another session saw of the row at that moment."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.values: list[str] = []
        self.rows_then: list[int] = []

    def __call__(self, name: str, value: str) -> str:
        assert name == "api_token"
        with connect(self._dsn) as other:
            self.rows_then += [n for (n,) in other.execute("SELECT count(*) FROM bots").fetchall()]
        self.values.append(value)
        return "the test"


@pytest.fixture
def shown(shop: str) -> Shown:
    return Shown(shop)


@pytest.fixture
def site(site_of: OpenSite, shown: Shown) -> Site:
    """The tables are made, the master is not."""
    site: Site = site_of(MASTER_PLAN, environ=ENVIRON, show_secret=shown)
    site.execute_all(before=site.step())
    return site


def journal_of(site: Site) -> str:
    """Every row of the journal as text."""
    tables = [table for (table,) in site.sql(JOURNAL)]
    return "\n".join(row for t in tables for (row,) in site.sql(f"SELECT t::text FROM online_migrate.{t} t"))


def ensure_no_secret(text: str, *secrets: str) -> None:
    assert [s for s in (TOKEN, *secrets) if s in text] == []


def test_the_token_is_shown_before_its_row_counts(site: Site, shown: Shown) -> None:
    """Once the row is visible the token that was shown works; of it only 12 digits
    and the digest are kept.
    """
    assert site.execute() == 1
    (value,) = shown.values
    assert shown.rows_then == [0]
    digest = hashlib.sha256(value.encode()).hexdigest()
    assert site.sql(ROW) == [(TOKEN, f"sha256:{digest[:12]}", digest)]
    assert len(value) >= 43  # 32 random bytes
    master = site.one("SELECT id FROM bots WHERE is_master")
    assert site.journal.read_references(site.run_id) == {"master.id": str(master)}


def test_a_commit_that_fails_leaves_nothing(site: Site, shown: Shown) -> None:
    """The token that was shown is void: no row, no reference, and a message without it; the next run makes
    the row.
    """
    site.sql(
        REFUSE + "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON bots DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(
        VerificationFailed, match=r"no bot with token <secret\.telegram_token> today"
    ) as refused:
        site.execute()
    ensure_no_secret(refused.value.message, *shown.values)
    assert refused.value.__suppress_context__
    assert site.one("SELECT count(*) FROM bots") == 0
    assert site.journal.read_references(site.run_id) == {}
    site.sql("DROP TRIGGER late ON bots")
    site.execute()
    assert len(site.sql(ROW)) == 1


def test_a_deferred_trigger_finds_what_it_finds_elsewhere(site: Site) -> None:
    """It fires at the COMMIT, and names no schema: its role's search_path counts, not ours."""
    site.sql(
        "CREATE TABLE seen (id integer);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NEW; END $$;"
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON bots DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION note()"
    )
    assert site.execute() == 1
    assert site.one("SELECT count(*) FROM seen") == 1


def test_a_token_that_cannot_be_shown_makes_no_row(site_of: OpenSite) -> None:
    """Without a place for the token there is no row that only a lost token opens."""

    def nowhere(name: str, value: str) -> str:
        raise UsageError("cannot be written", remedy=f"{name} has {len(value)} characters")

    site = site_of(MASTER_PLAN, environ=ENVIRON, show_secret=nowhere)
    site.execute_all(before=site.step())
    with pytest.raises(UsageError, match="cannot be written"):
        site.execute()
    assert site.state() is State.ABSENT


def test_a_master_that_is_there_is_adopted(site_of: OpenSite, shown: Shown) -> None:
    """Nothing of it is written over, no token is made, and no secret is asked for."""
    site = site_of(MASTER_PLAN, environ={}, show_secret=shown)
    site.execute_all(before=site.step())
    site.sql(A_MASTER)
    assert site.execute() == 0
    assert site.sql(ROW) == [("a", "b", "c")]
    assert shown.values == []
    assert site.state() is State.DONE


def test_two_masters_are_not_chosen_between(site: Site) -> None:
    """Also where the second came after the check: the run stops, and nothing refers to either."""
    site.sql(A_MASTER + A_MASTER.replace("'a', 'b'", "'d', 'e'"))
    with pytest.raises(VerificationFailed, match="2 rows of bots are what <master> should stand for"):
        site.execute()
    assert site.journal.read_references(site.run_id) == {}


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (
            A_MASTER.replace("true", "false").replace("'a'", f"'{TOKEN}'"),
            "another row has the same value in one of bots_api_token_key, bots_telegram_bot_token_key",
        ),
        (
            REFUSE + "CREATE TRIGGER early BEFORE INSERT ON bots FOR EACH ROW EXECUTE FUNCTION refuse()",
            "no bot with token <secret.telegram_token> today",
        ),
        ("ALTER TABLE bots ADD CHECK (telegram_bot_token LIKE 'x%')", "violates check constraint"),
        ("ALTER TABLE bots ALTER telegram_bot_token TYPE varchar(5)", "value too long"),
        (
            "ALTER TABLE bots ALTER telegram_bot_token TYPE bigint USING NULL",
            'invalid input syntax for type bigint: "<secret.telegram_token>"',
        ),
        ("ALTER TABLE bots ADD must text NOT NULL", 'null value in column "must"'),
    ],
    ids=["unique", "trigger that quotes it", "check", "too long", "another type", "not null"],
)
def test_a_refused_row_tells_no_secret(site: Site, shown: Shown, before: str, words: str) -> None:
    """Whatever refuses the row, and whatever the server quotes: the message, exit 5, names the secret and not
    its value.
    """
    site.sql(before)
    rows = site.rows()
    with pytest.raises(VerificationFailed, match="the row <master> of bots was refused") as refused:
        site.execute()
    assert words in refused.value.message
    ensure_no_secret(refused.value.message + refused.value.remedy, *shown.values)
    assert site.rows() == rows


def test_no_secret_stands_where_others_look(site: Site, shown: Shown) -> None:
    """Not in the journal, not in what pg_stat_activity shows while the row is written, not in
    pg_stat_statements.
    """
    site.sql(
        """CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
           CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.15);
             RETURN NEW; END $$;
           CREATE TRIGGER slow BEFORE INSERT ON bots FOR EACH ROW EXECUTE FUNCTION slowly()"""
    )
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            seen.update(q for (q,) in site.sql("SELECT query FROM pg_stat_activity WHERE query <> ''"))

    thread = threading.Thread(target=look)
    thread.start()
    site.execute()
    over.set()
    thread.join()
    assert any("INSERT INTO" in query and "bots" in query for query in seen)
    texts = [*seen, journal_of(site), *(e.name + str(e.fields()) for e in site.heard.events)]
    texts += [q for (q,) in site.sql("SELECT query FROM pg_stat_statements")]
    ensure_no_secret("\n".join(texts), *shown.values)
    assert "master.id" in journal_of(site)


def test_no_secret_stands_in_the_servers_log() -> None:
    """A unique violation's row is not in the log, with any role; as superuser not even a failing row or
    the parameters, on a server that logs every statement.
    """
    with start_own_server() as server:
        create_shop(server.dsn, users=20)
        shown = Shown(server.dsn)
        with connect(server.dsn) as operator:
            operator.execute(
                """CREATE ROLE owner; CREATE ROLE runner; ALTER TABLE users OWNER TO owner;
                   GRANT owner, pg_read_all_stats TO runner; GRANT CREATE ON DATABASE postgres TO runner;
                   GRANT CREATE, USAGE ON SCHEMA public TO runner, owner;
                   GRANT ALL ON ALL TABLES IN SCHEMA public TO runner"""
            )
            with open_site(
                server.dsn, MASTER_PLAN, folder=PLANS, environ=ENVIRON, show_secret=shown, role="runner"
            ) as site:
                site.execute_all(before=site.step())
                operator.execute(
                    "INSERT INTO bots (name, telegram_bot_token, api_token, api_token_hash) VALUES ('n', %s,"
                    " '', '')",
                    [TOKEN],
                )
                with pytest.raises(VerificationFailed):
                    site.execute()
            operator.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
            operator.execute("SELECT pg_reload_conf()")
            operator.execute("TRUNCATE bots CASCADE")
        with open_site(
            server.dsn,
            MASTER_PLAN.replace("plan: harness", "plan: other"),
            environ=ENVIRON,
            show_secret=shown,
        ) as site:
            site.sql("ALTER TABLE bots ADD CONSTRAINT no_bot CHECK (telegram_bot_token LIKE 'x%')")
            with pytest.raises(VerificationFailed):
                site.execute()
            site.sql("ALTER TABLE bots DROP CONSTRAINT no_bot")
            site.execute()
        log = server.log_tail(100_000)
    assert 'INSERT INTO "public"."bots"' in log
    assert 'new row for relation "bots" violates check constraint "no_bot"' in log
    ensure_no_secret(log, *shown.values)


def test_references_are_values_and_not_text(site_of: OpenSite) -> None:
    """A row that references another by its key: absent until that one is made, and
    written with the very value.
    """
    site = site_of(
        plan_of(
            'ensure_row: {id: main, table: shops, where: {is_main: true}, values: {code: "it\'s 100%"}}',
            "ensure_row: {id: first, table: branches, where: {shop: <main.code>}, values: {copy:"
            " <main.code>}}",
        )
    )
    site.sql(
        "CREATE TABLE shops (code text PRIMARY KEY, is_main boolean);"
        "CREATE TABLE branches (id serial PRIMARY KEY, shop text REFERENCES shops, copy text)"
    )
    assert site.state() is State.ABSENT
    assert site.stops() == []
    site.execute_all()
    assert site.sql("SELECT shop, copy FROM branches") == [("it's 100%", "it's 100%")]
    assert {site.state(step) for step in site.steps} == {State.DONE}


def test_a_per_cent_sign_in_a_name_is_a_letter(site_of: OpenSite) -> None:
    """Names occur beside bind parameters, where psycopg would take the sign for the beginning of a
    placeholder.
    """
    site = site_of(
        plan_of(
            'ensure_row: {id: main, table: "sales at 50%s", where: {"50%": half}, values: {"%s of %": all}}'
        )
    )
    site.sql('CREATE TABLE "sales at 50%s" (id serial PRIMARY KEY, "50%" text, "%s of %" text)')
    site.execute()
    assert site.sql('SELECT "50%", "%s of %" FROM "sales at 50%s"') == [("half", "all")]
    assert site.state() is State.DONE


def test_a_row_is_not_looked_for_by_a_secret(site_of: OpenSite) -> None:
    """It would be part of a statement's text; the loader says so with the column."""
    text = MASTER_PLAN.replace("is_master: true", "telegram_bot_token: <secret.telegram_token>")
    with pytest.raises(PlanError, match="telegram_bot_token is a secret"):
        site_of(text)


def test_a_lost_row_is_seen(site: Site) -> None:
    """Verify reads the world again."""
    site.execute()
    assert site.verify() == []
    site.sql("DELETE FROM bots")
    (finding,) = site.verify()
    assert "the row <master> of bots was deleted" in finding.fact
