"""g: PostgreSQL's own rights are enough, and one that is missing is a finding with its GRANT."""

from __future__ import annotations

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import COLUMN_ROWS_KEY, EITHER, PARENT_AND_TABLE, STOPS, Case
from tests.operations.site import plan_of

KEY_PLAN = plan_of(*COLUMN_ROWS_KEY)
OWNER = """
    GRANT CREATE, TEMP ON DATABASE om_database TO om_role_own; GRANT CREATE ON SCHEMA public TO om_role_own;
    GRANT pg_read_all_stats TO om_role_own; ALTER TABLE p OWNER TO om_role_own;
      ALTER TABLE t OWNER TO om_role_own;"""
OTHER = f"{PARENT_AND_TABLE}{OWNER} ALTER TABLE p OWNER TO om_role_other;"
FORCED = (
    "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY; ALTER TABLE {0} FORCE ROW LEVEL SECURITY; CREATE POLICY"
    " a ON {0} USING ({1});"
)
KEYED = {"SELECT count(*) FROM pg_constraint WHERE conname = 't_c_fkey' AND convalidated": 1}


@pytest.mark.parametrize(
    "grants",
    [
        pytest.param("GRANT REFERENCES, SELECT ON p TO om_role_own;", id="g1"),
        pytest.param("GRANT REFERENCES ON p TO om_role_own;", id="g1-references-alone"),
        pytest.param("GRANT REFERENCES (id), SELECT (id) ON p TO om_role_own;", id="g1-of-the-column"),
    ],
)
def test_g1_references_on_the_parent_is_enough_for_a_foreign_key(trial_of: OpenTrial, grants: str) -> None:
    """ADD FOREIGN KEY asks for REFERENCES on the parent: with it the plan runs, or check names the GRANT that
    we need besides.
    """
    case = Case(
        name="g1",
        setup=OTHER + grants,
        plan=KEY_PLAN,
        role="om_role_own",
        check=EITHER,
        stops_with=(r"GRANT [A-Z, ()a-z]+ ON (TABLE )?(public\.)?p TO om_test_\d+_own",),
        after=KEYED,
    )
    trial_of(case).prove(case)


def test_g1_without_references(trial_of: OpenTrial) -> None:
    """Without REFERENCES the server refuses the key: check says so first, with the GRANT."""
    grant = r"GRANT [A-Z, ]*REFERENCES[A-Z, ]* ON (TABLE )?(public\.)?p TO om_test_\d+_own"
    case = Case(name="g1", setup=OTHER, plan=KEY_PLAN, role="om_role_own", check=STOPS, says=(grant,))
    trial_of(case).prove(case)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(FORCED.format("p", "true"), id="g2"),
        pytest.param(FORCED.format("p", "id > 0"), id="g2-some-rows"),
        pytest.param(FORCED.format("t", "true"), id="g2-on-the-child"),
        pytest.param(FORCED.format("t", "id % 2 = 0"), id="g2-child-rows-hidden"),
        pytest.param(FORCED.format("p", "false") + FORCED.format("t", "false"), id="g2-nothing-seen"),
    ],
)
def test_g2_row_level_security_hides_no_row_in_silence(trial_of: OpenTrial, policy: str) -> None:
    """A table whose policies bind its owner too: every row is filled and the key is valid, or check stops
    with BYPASSRLS.
    """
    setup = PARENT_AND_TABLE + OWNER + policy
    case = Case(
        name="g2",
        setup=setup,
        plan=KEY_PLAN,
        role="om_role_own",
        check=EITHER,
        stops_with=(("(?i)row.level security|BYPASSRLS"),),
        after={**KEYED, "SELECT count(*) FROM t WHERE c IS NULL": 0},
    )
    trial_of(case).prove(case)


MEMBER = f"""{PARENT_AND_TABLE}{OWNER}
    GRANT om_role_own, pg_read_all_stats TO om_role_mig;
      GRANT CREATE, TEMP ON DATABASE om_database TO om_role_mig;
    GRANT CREATE ON SCHEMA public TO om_role_mig;"""
NEW_TABLE = plan_of("create_tables: new.sql")
NEW = {"new.sql": "CREATE TABLE n (id int PRIMARY KEY, p int REFERENCES p);"}


@pytest.mark.parametrize(
    ("more", "grant"),
    [
        pytest.param(
            "REVOKE CREATE ON SCHEMA public FROM om_role_own;",
            r"GRANT .*CREATE.* ON SCHEMA public TO om_test_\d+_own",
            id="g3",
        ),
        pytest.param(
            "REVOKE CREATE ON SCHEMA public FROM om_role_own, om_role_mig;",
            r"GRANT .*CREATE.* ON SCHEMA public TO",
            id="g3-neither",
        ),
        pytest.param(
            "REVOKE CREATE ON SCHEMA public FROM om_role_mig;",
            r"GRANT .*CREATE.* ON SCHEMA public TO",
            id="g3-only-the-owner",
        ),
        pytest.param("ALTER ROLE om_role_mig NOINHERIT;", r"INHERIT|SET ROLE|GRANT", id="g3-noinherit"),
        pytest.param(
            "REVOKE om_role_own FROM om_role_mig; GRANT REFERENCES ON p TO om_role_mig;",
            r"GRANT om_test_\d+_own TO|owner",
            id="g3-no-member",
        ),
    ],
)
def test_g3_new_tables_for_an_owner_who_may_not_create(trial_of: OpenTrial, more: str, grant: str) -> None:
    """A new table gets its neighbours' owner, who needs CREATE on the schema: check names the GRANT, or the
    run succeeds.
    """
    fact = "SELECT count(*) FROM pg_class WHERE relname = 'n'"
    case = Case(
        name="g3",
        setup=MEMBER + more,
        plan=NEW_TABLE,
        files=NEW,
        role="om_role_mig",
        check=EITHER,
        stops_with=(grant,),
        after={fact: 1},
    )
    trial_of(case).prove(case)


@pytest.mark.parametrize(
    ("more", "grant"),
    [
        pytest.param("ALTER ROLE om_role_mig NOINHERIT;", r"INHERIT|SET ROLE|GRANT", id="g4-noinherit"),
        pytest.param("CREATE PUBLICATION everything FOR ALL TABLES;", "(?i)publication", id="g4-published"),
        pytest.param(
            "REVOKE TEMP ON DATABASE om_database FROM PUBLIC, om_role_mig, om_role_own;",
            "GRANT TEMP",
            id="g4-no-temp",
        ),
        pytest.param(
            "REVOKE CREATE ON DATABASE om_database FROM om_role_mig, om_role_own;",
            "GRANT CREATE ON DATABASE",
            id="g4-no-create",
        ),
        pytest.param(
            "REVOKE pg_read_all_stats FROM om_role_mig, om_role_own;",
            "GRANT pg_read_all_stats",
            id="g4-no-stats",
        ),
        pytest.param(
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC;", "GRANT USAGE ON SCHEMA public", id="g4-no-usage"
        ),
        pytest.param(
            "CREATE SCHEMA s; ALTER TABLE p SET SCHEMA s;",
            r"GRANT|\bp\b",
            id="g4-parent-in-a-schema-of-another",
        ),
    ],
)
def test_g4_each_right_that_is_missing_is_named(trial_of: OpenTrial, more: str, grant: str) -> None:
    """One right taken away is one finding with the GRANT, or the plan runs without it; never a failure in the
    night.
    """
    case = Case(
        name="g4",
        setup=MEMBER + more,
        plan=KEY_PLAN,
        role="om_role_mig",
        check=EITHER,
        stops_with=(grant,),
        after=KEYED,
    )
    trial_of(case).prove(case)
