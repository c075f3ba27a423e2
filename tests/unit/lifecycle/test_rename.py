"""SQL of one tenant becomes another's: the schema's and the roles' names change, and no other word."""

from __future__ import annotations

import pytest

from tenant_proxy.lifecycle.rename import NotRenamed, Renaming, quote_name, statements

ROLES = {"acme_owner": "beta_owner", "acme_ro": "beta_ro"}


def renamed(sql: str) -> str:
    renaming = Renaming("acme", "beta", ROLES)
    result = renaming.statement(sql)
    assert not renaming.findings
    return result


@pytest.mark.parametrize(
    ("sql", "becomes"),
    [
        ("CREATE SCHEMA acme", "CREATE SCHEMA beta"),
        ("ALTER SCHEMA acme OWNER TO acme_owner", "ALTER SCHEMA beta OWNER TO beta_owner"),
        ("GRANT USAGE ON SCHEMA acme TO acme_ro", "GRANT USAGE ON SCHEMA beta TO beta_ro"),
        ("COMMENT ON SCHEMA acme IS 'all of acme.'", "COMMENT ON SCHEMA beta IS 'all of acme.'"),
        # a table, a column and an alias of the schema's name
        (
            "CREATE VIEW acme.v AS SELECT acme.acme, acme.* FROM acme.acme acme WHERE acme.acme > 0",
            "CREATE VIEW beta.v AS SELECT acme.acme, acme.* FROM beta.acme acme WHERE acme.acme > 0",
        ),
        (
            "CREATE VIEW acme.v AS SELECT (acme.row).x, acme.*::acme.t AS acme FROM acme.t acme",
            "CREATE VIEW beta.v AS SELECT (acme.row).x, acme.*::beta.t AS acme FROM beta.t acme",
        ),
        (
            "ALTER TABLE acme.t ALTER id SET DEFAULT nextval('acme.s'::regclass)",
            "ALTER TABLE beta.t ALTER id SET DEFAULT nextval('beta.s'::regclass)",
        ),
        ("SELECT pg_catalog.setval('acme.\"a.b\"', 3)", "SELECT pg_catalog.setval('beta.\"a.b\"', 3)"),
        (
            "ALTER OPERATOR CLASS acme.c USING btree OWNER TO acme_owner",
            "ALTER OPERATOR CLASS beta.c USING btree OWNER TO beta_owner",
        ),
        (
            "CREATE OPERATOR acme.=== (FUNCTION = acme.f, LEFTARG = acme.p, COMMUTATOR = OPERATOR(acme.===))",
            "CREATE OPERATOR beta.=== (FUNCTION = beta.f, LEFTARG = beta.p, COMMUTATOR = OPERATOR(beta.===))",
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE acme_owner IN SCHEMA acme GRANT SELECT ON TABLES TO acme_ro",
            "ALTER DEFAULT PRIVILEGES FOR ROLE beta_owner IN SCHEMA beta GRANT SELECT ON TABLES TO beta_ro",
        ),
        ("CREATE ROLE acme_ro NOLOGIN", "CREATE ROLE beta_ro NOLOGIN"),
        ("GRANT acme_owner TO acme_ro", "GRANT beta_owner TO beta_ro"),
        (
            "ALTER ROLE acme_ro IN DATABASE acme SET search_path TO 'acme', 'public'",
            "ALTER ROLE beta_ro IN DATABASE acme SET search_path TO 'beta', 'public'",
        ),
        (
            "CREATE FUNCTION acme.f(acme.mood) RETURNS acme.t LANGUAGE sql SET search_path TO 'acme'"
            " AS $$ SELECT * FROM acme.t acme WHERE acme.id = 1 $$",
            "CREATE FUNCTION beta.f(beta.mood) RETURNS beta.t LANGUAGE sql SET search_path TO 'beta'"
            " AS $$ SELECT * FROM beta.t acme WHERE acme.id = 1 $$",
        ),
        (
            "CREATE FUNCTION acme.f() RETURNS trigger LANGUAGE plpgsql AS $_$ BEGIN"
            " PERFORM acme.g(NEW.x); RETURN new; END $_$",
            "CREATE FUNCTION beta.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM beta.g(NEW.x); RETURN new; END $$",
        ),
        # what is not ours stays: another's schema that begins alike, a column's name, a comment
        ("SELECT acme2.f(acme), acme.g() /* acme.y */", "SELECT acme2.f(acme), beta.g() /* acme.y */"),
        ("COPY acme.t (id, acme) FROM stdin", "COPY beta.t (id, acme) FROM stdin"),
        (
            "CREATE TYPE acme.e AS ENUM ('acme', 'x', 'acme.y')",
            "CREATE TYPE beta.e AS ENUM ('acme', 'x', 'acme.y')",
        ),
        (
            "COMMENT ON COLUMN acme.acme.acme IS 'x'",
            "COMMENT ON COLUMN beta.acme.acme IS 'x'",
        ),
        (
            "CREATE POLICY p ON acme.t TO acme_ro USING (who = 'acme_ro'::regrole)",
            "CREATE POLICY p ON beta.t TO beta_ro USING (who = 'beta_ro'::regrole)",
        ),
    ],
)  # fmt: skip
def test_only_the_names_change(sql, becomes):
    assert renamed(sql) == becomes


def test_names_are_quoted_where_they_must_be():
    renaming = Renaming("acme", "my-shop", {"acme_ro": "order"})
    assert renaming.statement("GRANT SELECT ON acme.t TO acme_ro") == 'GRANT SELECT ON "my-shop".t TO "order"'
    sql = "SELECT nextval('acme.s'::regclass)"
    assert renaming.statement(sql) == "SELECT nextval('\"my-shop\".s'::regclass)"
    assert [quote_name(name) for name in ("a_1", "A", "table", "1a", "a$")] == [
        "a_1", '"A"', '"table"', '"1a"', '"a$"'
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        # an alias and a parameter of the schema's name
        "BEGIN PERFORM acme.id FROM other acme; END",
        "DECLARE acme acme.t; BEGIN acme.id := 1; END",
        "BEGIN PERFORM x.acme FROM x; PERFORM acme.f(); END",
        "BEGIN EXECUTE 'SELECT * FROM acme.t'; END",
        "BEGIN EXECUTE format('SELECT * FROM acme.%I', x); END",
        "BEGIN GRANT SELECT ON t TO acme_ro; END",
    ],
)
def test_what_cannot_be_told_in_a_body_is_reported(body):
    renaming = Renaming("acme", "beta", ROLES)
    sql = f"CREATE FUNCTION acme.f() RETURNS void LANGUAGE plpgsql AS $$ {body} $$"
    after = renaming.statement(sql)
    assert after.startswith("CREATE FUNCTION beta.f()")
    assert [finding.kind for finding in renaming.findings] == ["unsure"]


def test_constants_are_left_and_reported():
    renaming = Renaming("acme", "beta", ROLES)
    sql = "ALTER TABLE acme.t ADD CHECK (name <> 'acme' AND kind <> 'acmee')"
    assert renaming.statement(sql) == "ALTER TABLE beta.t ADD CHECK (name <> 'acme' AND kind <> 'acmee')"
    assert [finding.kind for finding in renaming.findings] == ["literal"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE acme.t SET acme.part = 1",
        "COMMENT ON COLUMN acme.x IS 'a table of the schema''s name, or the schema'",
    ],
)
def test_a_statement_that_cannot_be_told_is_refused(sql):
    with pytest.raises(NotRenamed):
        Renaming("acme", "beta", ROLES).statement(sql)


def test_roles_that_do_not_come_along_leave_nothing():
    renaming = Renaming("acme", "beta", ROLES, dropped=frozenset({"acme_app"}))
    for sql in (
        "GRANT SELECT ON TABLE acme.t TO acme_app",
        "REVOKE ALL ON TABLE acme.t FROM acme_app",
        "ALTER DEFAULT PRIVILEGES FOR ROLE acme_app IN SCHEMA acme GRANT SELECT ON TABLES TO acme_ro",
        "ALTER DEFAULT PRIVILEGES FOR ROLE acme_owner IN SCHEMA acme GRANT SELECT ON TABLES TO acme_app",
        "CREATE POLICY p ON acme.t TO acme_app USING (true)",
    ):
        assert renaming.statement(sql) == ""
    for sql in (
        "CREATE POLICY p ON acme.t TO acme_app, acme_ro USING (true)",
        "ALTER TABLE acme.t OWNER TO acme_app",
    ):
        with pytest.raises(NotRenamed, match="does not come along"):
            renaming.statement(sql)
    sql = "COMMENT ON TABLE acme.t IS 'of acme_app'"
    assert renaming.statement(sql) == "COMMENT ON TABLE beta.t IS 'of acme_app'"


def test_scripts_lose_what_is_psqls():
    assert list(statements("\\restrict abc\nSELECT 1;\nSELECT '\\x\n\\y';\n\\unrestrict abc\n")) == [
        "SELECT 1",
        "SELECT '\\x\n\\y'",
    ]
