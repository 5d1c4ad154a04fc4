"""e: an event trigger that will refuse a statement of the plan, or of the migrating role, is known before the
run.
"""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import COLUMN_ROWS_KEY, EITHER, PARENT_AND_TABLE, RUNS, STOPS, Case
from tests.operations.site import plan_of

COLUMN = plan_of("add_column: {table: users, column: bot_id, type: integer, new_rows: 1}")
USERS = """
    GRANT pg_read_all_stats TO om_role_mig; GRANT CREATE, TEMP ON DATABASE om_database TO om_role_mig;
    GRANT CREATE, USAGE ON SCHEMA public TO om_role_mig;
    CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'a');
    ALTER TABLE users OWNER TO om_role_mig;
    CREATE TABLE public.awsdms_ddl_audit (c_key bigserial PRIMARY KEY, c_time timestamptz, c_user
      varchar(64), c_tag varchar(24));"""
AUDIT = """
    CREATE FUNCTION awsdms_intercept_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      IF tg_tag LIKE 'ALTER TABLE' THEN
        INSERT INTO public.awsdms_ddl_audit (c_time, c_user, c_tag) VALUES (now(), current_user, tg_tag);
        DELETE FROM public.awsdms_ddl_audit; END IF; END $$;
    CREATE EVENT TRIGGER awsdms_intercept_ddl ON ddl_command_end EXECUTE FUNCTION awsdms_intercept_ddl();"""


@pytest.mark.parametrize(
    "audit",
    [
        pytest.param(AUDIT, id="e1"),
        pytest.param(
            AUDIT.replace("ON ddl_command_end", "ON ddl_command_start"), id="e1-before-the-statement"
        ),
        pytest.param(
            AUDIT.replace("IF tg_tag LIKE 'ALTER TABLE' THEN", "IF true THEN"), id="e1-every-statement"
        ),
    ],
)
def test_e1_an_audit_trigger_that_refuses_the_migrating_role_is_named(
    trial_of: OpenTrial, audit: str
) -> None:
    """It runs as the caller: a role that may not write the audit table cannot alter a table; check names the
    trigger.
    """
    words = ("awsdms",)
    case = Case(name="e1", setup=USERS + audit, plan=COLUMN, role="om_role_mig", check=STOPS, says=words)
    trial_of(case).prove(case)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(
            AUDIT.replace("LANGUAGE plpgsql", "LANGUAGE plpgsql SECURITY DEFINER"), id="e1-as-its-owner"
        ),
        pytest.param(AUDIT + "ALTER EVENT TRIGGER awsdms_intercept_ddl DISABLE;", id="e1-disabled"),
        pytest.param(AUDIT.replace("LIKE 'ALTER TABLE'", "LIKE 'DROP FUNCTION'"), id="e1-another-statement"),
        pytest.param(
            AUDIT + "GRANT INSERT, DELETE, SELECT ON public.awsdms_ddl_audit TO om_role_mig;"
            "GRANT USAGE ON SEQUENCE awsdms_ddl_audit_c_key_seq TO om_role_mig;",
            id="e1-granted",
        ),
    ],
)
def test_e1_an_event_trigger_that_lets_the_role_pass_is_no_obstacle(trial_of: OpenTrial, more: str) -> None:
    """Where the trigger succeeds for the migrating role, or does not fire, check stops nothing and the plan
    runs.
    """
    case = Case(name="e1", setup=USERS + more, plan=COLUMN, role="om_role_mig", check=RUNS)
    trial_of(case).prove(case)


REFUSES = """
    CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no DDL here';
      END $$;
    CREATE EVENT TRIGGER frozen ON %s;"""
SWAP = plan_of(
    "create_index: {table: t, name: t_id_code, columns: [code, id], unique: true}",
    "swap_unique: {table: t, from: [code], to: t_id_code}",
)


@pytest.mark.parametrize(
    ("on", "plan"),
    [
        pytest.param(
            "ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION ev()",
            plan_of(*COLUMN_ROWS_KEY),
            id="e2",
        ),
        pytest.param(
            "ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION ev()",
            plan_of(*COLUMN_ROWS_KEY),
            id="e2-after",
        ),
        pytest.param(
            "ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION ev()", SWAP, id="e2-create-index"
        ),
        pytest.param(
            "sql_drop WHEN TAG IN ('ALTER TABLE', 'DROP INDEX') EXECUTE FUNCTION ev()", SWAP, id="e2-drop"
        ),
        pytest.param(
            "ddl_command_end WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION ev()",
            plan_of(*COLUMN_ROWS_KEY),
            id="e2-our-schema",
        ),
    ],
)
def test_e2_an_event_trigger_that_refuses_a_statement_stops_check(
    trial_of: OpenTrial, on: str, plan: str
) -> None:
    """What the trigger raises at a statement of the plan, or of the journal, is a finding with its words."""
    case = Case(
        name="e2", setup=PARENT_AND_TABLE + REFUSES % on, plan=plan, check=STOPS, says=("no DDL here|frozen",)
    )
    trial_of(case).prove(case)


def test_e2_by_name(trial_of: OpenTrial) -> None:
    """A trigger that refuses one table by its name cannot be rehearsed on a copy: check names the trigger all
    the same.
    """
    refuses = """
        CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN
          FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
            IF r.object_identity = 'public.t' THEN RAISE EXCEPTION 'not t'; END IF; END LOOP; END $$;
        CREATE EVENT TRIGGER frozen ON ddl_command_end EXECUTE FUNCTION ev();"""
    plan = plan_of(*COLUMN_ROWS_KEY)
    case = Case(
        name="e2", setup=PARENT_AND_TABLE + refuses, plan=plan, check=EITHER, says=("frozen",), run=None
    )
    trial_of(case).prove(case)
