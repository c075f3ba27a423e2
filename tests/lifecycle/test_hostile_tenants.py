"""Tenants whose own code runs while the operator works on them: it gets no rights but theirs."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.lifecycle import erasing, export, ledger, migrations, restore, templates
from tenant_proxy.lifecycle.fleet import Member, Options
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.tools import Database
from tests.lifecycle.test_migrations import tables

#: {schema}.grab() is called wherever a tenant can have it called, and fails if it is more than the tenant
HOSTILE = """
SET ROLE {schema}_owner; SET search_path = {schema};
CREATE FUNCTION a_taken() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
CREATE FUNCTION grab() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RETURN {schema}.a_taken(); END $$;
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM {schema}.grab(); RETURN NEW; END $$;
"""

#: … as soon as it is made so
TAKEN = """
CREATE OR REPLACE FUNCTION a_taken() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE 'RESET ROLE';
    EXCEPTION WHEN others THEN
    END;
    BEGIN
        EXECUTE 'SET SESSION AUTHORIZATION DEFAULT';
    EXCEPTION WHEN others THEN
    END;
    IF (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'ran as %', current_user;
    END IF;
    RETURN true;
END $$;
"""

TRIGGER = """
CREATE TABLE t (id int);
INSERT INTO t VALUES (1);
CREATE TRIGGER fired BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION fire();
"""
DEFERRED = """
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fire();
"""
#: in rows that are written, and in their text
ROWS = """
CREATE DOMAIN checked AS int CHECK ({schema}.a_taken() AND VALUE > 0);
CREATE TYPE mood AS ENUM ('good', 'it''s "bad"');
CREATE TYPE pair AS (a checked, b text);
CREATE TABLE parted (id int, a int CHECK ({schema}.a_taken())) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE t (
    id int PRIMARY KEY CHECK ({schema}.a_taken()), d checked, ds checked[], p pair, m mood, b bytea, j jsonb,
    twice int GENERATED ALWAYS AS (CASE WHEN {schema}.grab() THEN id * 2 END) STORED,
    "Odd ""name" text DEFAULT 'x' NOT NULL);
INSERT INTO t (id, d, ds, p, m, b, j) VALUES
    (1, 1, '{{1,2}}', '(3,"a,\\"b")', 'it''s "bad"', '\\x00ff', '{{"a": "\\\\u00e9"}}'),
    (2, NULL, NULL, NULL, NULL, '\\x', NULL);
INSERT INTO parted VALUES (1, 1);
CREATE TABLE plain (id int, body text);
INSERT INTO plain VALUES (1, E'a\\tb\\n\\\\N'), (2, NULL);
CREATE TABLE nothing ();
CREATE FUNCTION said(t) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM {schema}.grab(); RAISE EXCEPTION 'a cast ran'; END $$;
CREATE CAST (t AS text) WITH FUNCTION said(t);
"""


#: in texts that are read as values of a domain when a definition is made, and in what keys are compared by
READ = """
CREATE DOMAIN checked AS int CHECK ({schema}.a_taken() AND VALUE > 0);
CREATE TYPE pair AS (a checked, b text);
CREATE TABLE t (id int PRIMARY KEY, p pair);
INSERT INTO t VALUES (1, '(3,x)');
"""
DEFINITIONS = {
    "view": "CREATE VIEW v AS SELECT '(3,x)'::pair AS p",
    "default": "CREATE FUNCTION f(p pair DEFAULT '(3,x)') RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "body": "CREATE FUNCTION f() RETURNS pair LANGUAGE sql BEGIN ATOMIC SELECT '(3,x)'::pair; END",
    "index": "CREATE INDEX i ON t (id) WHERE p = '(3,x)'::pair",
    "policy": "CREATE POLICY y ON t USING (p = '(3,x)'::pair)",
    "rule": "CREATE RULE r AS ON DELETE TO t WHERE OLD.p = '(3,x)'::pair DO INSTEAD NOTHING",
    "trigger": "CREATE TRIGGER w AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.p = '(3,x)'::pair)"
    " EXECUTE FUNCTION fire()",
    "statistics": "CREATE STATISTICS s ON (p = '(3,x)'::pair), id FROM t",
    "key": """
        CREATE TYPE ref AS (i int);
        CREATE FUNCTION seen(r ref) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM {schema}.a_taken(); RETURN r.i; END $$;
        CREATE CAST (ref AS int) WITH FUNCTION seen(ref) AS IMPLICIT;
        CREATE TABLE child (r ref REFERENCES t (id)); INSERT INTO child VALUES ('(1)')""",
}


def member(place, schema: str, made: str) -> Member:
    estate = place.with_roles(schema)
    place.sql((HOSTILE + made + TAKEN).format(schema=schema))
    return Member(schema, place.database_of(), estate)


def files(tmp_path, up: str, **more: str):
    (tmp_path / "1_all.sql").write_text(up)
    (tmp_path / "1_all.down.sql").write_text("UPDATE t SET id = id")
    for name, text in more.items():
        (tmp_path / name).write_text(text)
    return migrations.read(tmp_path)


@pytest.mark.parametrize("begins", ["", "-- tenant_proxy: no-transaction\n"])
async def test_a_migration(any_place, tmp_path, begins):
    one = member(any_place, f"grabs{len(begins)}", TRIGGER)
    found = files(
        tmp_path, f"{begins}UPDATE t SET id = 2; CREATE TABLE more (id int); UPDATE t SET id = id + 1"
    )
    (tmp_path / "1_all.check.sql").write_text("SELECT count(*) = 1 FROM t WHERE id = 3")
    found = migrations.read(tmp_path)
    report = await migrations.up([one], found, Options())
    if begins:
        # it may leave the owner's role, and is nobody then
        assert [done.error for done in report.outcomes] == [
            f"version 1: permission denied for schema {one.estate.schema}"
        ]
        return
    for one_way in (report, await migrations.down([one], found, Options(), to=0)):
        assert [(done.state, done.error) for done in one_way.outcomes] == [("done", "")]
    assert tables(any_place, one) == f"more {one.estate.owner}, t {one.estate.owner}"


@pytest.mark.parametrize("why", ["language", "schema", "long"])
async def test_a_migration_where_the_owner_can_make_no_function(any_place, tmp_path, why):
    one = member(any_place, f"no_maker_{why}", TRIGGER)
    up = "UPDATE t SET id = 2" + " " * (9_000 if why == "long" else 0)
    language = "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"
    forbidden = {
        "language": language,
        "schema": f"REVOKE CREATE ON SCHEMA {one.estate.schema} FROM {one.estate.owner}",
    }
    any_place.sql(forbidden.get(why, ""))
    try:
        (done,) = (await migrations.up([one], files(tmp_path, up), Options())).outcomes
    finally:
        any_place.sql(language.replace("REVOKE", "GRANT").replace("FROM", "TO"))
    assert (done.state, done.error) == ("done", "")


async def test_a_migration_of_who_has_functions_like_ours(any_place, tmp_path):
    alike = """
        CREATE FUNCTION tp_jail(a int DEFAULT 1) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM {schema}.a_taken(); END $$;
        CREATE FUNCTION tp_jail(VARIADIC a text[]) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM {schema}.a_taken(); END $$;
        CREATE FUNCTION tp_jail(a text, b int DEFAULT 1) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM {schema}.a_taken(); END $$;
    """
    for up in ("UPDATE t SET id = 2", "UPDATE t SET id = 2" + " " * 9_000):
        one = member(any_place, f"alike_{len(up)}", TRIGGER + alike)
        (done,) = (await migrations.up([one], files(tmp_path, up), Options())).outcomes
        assert not done.error or "is not unique" in done.error


@pytest.mark.parametrize("tag", ["$tp_jail$", "$tp_block$", "$tp_body$"])
async def test_a_migration_that_would_end_what_confines_it(place, tmp_path, tag):
    one = member(place, "ends", TRIGGER)
    out = "CREATE ROLE escaped; -- "
    for text in (f"SELECT $x${tag}; {out}$x$", f"{tag[1:]}; {out}", f"{out}{tag[:-1]}"):
        found = [replace(file, up=text) for file in files(tmp_path, "SELECT 1")]
        (done,) = (await migrations.up([one], found, Options())).outcomes
        assert done.state == "failed"
        assert not place.sql("SELECT rolname FROM pg_roles WHERE rolname = 'escaped'").strip()


async def test_a_migration_whose_triggers_can_be_put_off(any_place, tmp_path):
    one = member(any_place, "later", TRIGGER + DEFERRED)
    report = await migrations.up([one], files(tmp_path, "UPDATE t SET id = 2"), Options())
    (done,) = report.outcomes
    if any_place.major < 18:
        assert "can be deferred" in done.error
    else:
        assert (done.state, done.error) == ("done", "")


#: puts itself off to the end of the transaction when it is fired, where no schema of the tenant's shows it
ELSEWHERE = """
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.a_taken();
    SET CONSTRAINTS ALL DEFERRED;
    INSERT INTO {where}.late SELECT 1 WHERE 3 > (SELECT count(*) FROM {where}.late);
    RETURN NULL;
END $$;
CREATE FUNCTION put_off() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE {temporary} TABLE {where}.late (id int);
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON {where}.late DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION {schema}.again();
    INSERT INTO {where}.late VALUES (1);
END $$;
"""
TEMPORARY = ELSEWHERE.replace("{where}", "pg_temp").replace("{temporary}", "TEMPORARY")
CALLED = """
CREATE OR REPLACE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM {schema}.put_off(); RETURN NEW; END $$;
"""
#: a key's check is put off, and only then makes what is put off
BY_A_CAST = """
CREATE TABLE named (id int PRIMARY KEY);
INSERT INTO named VALUES (1), (2);
CREATE TYPE ref AS (i int);
CREATE FUNCTION seen(r ref) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('my.seen', true) = '1' AND r.i = 1 THEN
        PERFORM set_config('my.seen', '2', false);
        SET CONSTRAINTS ALL DEFERRED;
        INSERT INTO {schema}.child VALUES ('(2)');
    ELSIF current_setting('my.seen', true) = '2' AND r.i = 2 THEN
        PERFORM set_config('my.seen', '3', false);
        PERFORM {schema}.put_off();
    END IF;
    RETURN r.i; END $$;
CREATE CAST (ref AS int) WITH FUNCTION seen(ref) AS IMPLICIT;
CREATE TABLE child (r ref REFERENCES named (id) DEFERRABLE INITIALLY DEFERRED);
CREATE OR REPLACE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM set_config('my.seen', '1', false);
    INSERT INTO {schema}.child VALUES ('(1)');
    RETURN NEW; END $$;
"""
BY_AN_INDEX = """
CREATE TABLE named (id int PRIMARY KEY);
INSERT INTO named VALUES (1), (2);
CREATE TABLE child (r int REFERENCES named (id) DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION planned() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('my.seen', true) = '1' THEN
        PERFORM set_config('my.seen', '2', false);
        SET CONSTRAINTS ALL DEFERRED;
        INSERT INTO {schema}.child VALUES (2);
        DISCARD PLANS;
    ELSIF current_setting('my.seen', true) = '2' THEN
        PERFORM set_config('my.seen', '3', false);
        PERFORM {schema}.put_off();
    END IF; END $$;
CREATE FUNCTION seen(n int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    PERFORM {schema}.planned(); RETURN true; END $$;
CREATE INDEX ON named (id) WHERE seen(1);
CREATE OR REPLACE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM set_config('my.seen', '1', false);
    INSERT INTO {schema}.child VALUES (1);
    RETURN NEW; END $$;
"""
#: … and what waits does not look as if it could
MASKED = BY_AN_INDEX.replace(
    "INITIALLY DEFERRED);",
    "INITIALLY DEFERRED) PARTITION BY LIST (r); CREATE TABLE part PARTITION OF child DEFAULT;",
).replace(
    "DISCARD PLANS;",
    "DISCARD PLANS; ALTER TABLE {schema}.child ALTER CONSTRAINT child_r_fkey NOT DEFERRABLE;",
)


@pytest.mark.parametrize(
    "made",
    [
        TEMPORARY + CALLED,
        ELSEWHERE.replace("{where}", "theirs").replace("{temporary}", "") + CALLED,
        TEMPORARY + BY_A_CAST,
        TEMPORARY + BY_AN_INDEX,
        TEMPORARY + MASKED,
    ],
    ids=["temporary", "schema", "cast", "index", "masked"],
)
async def test_a_migration_whose_triggers_are_put_off_elsewhere(any_place, tmp_path, made, request):
    schema = f"late_{request.node.callspec.id.split('-')[-1]}"
    one = member(any_place, schema, TRIGGER + made)
    any_place.sql(f"CREATE SCHEMA IF NOT EXISTS theirs; GRANT ALL ON SCHEMA theirs TO {one.estate.owner}")
    try:
        report = await migrations.up([one], files(tmp_path, "UPDATE t SET id = 2"), Options())
    finally:
        any_place.sql("DROP SCHEMA theirs CASCADE")
    # the latter where it is seen at once: before version 18, of what can be deferred
    said = ("code that puts off", "that can be deferred")
    assert any(text in report.outcomes[0].error for text in said)


async def test_a_migration_that_leaves_a_cursor(any_place, tmp_path):
    held = """CREATE OR REPLACE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT {schema}.a_taken()'; RETURN NEW; END $$;"""
    one = member(any_place, "held", TRIGGER + held)
    (done,) = (await migrations.up([one], files(tmp_path, "UPDATE t SET id = 2"), Options())).outcomes
    assert (done.state, done.error) == ("done", "")


async def test_a_ledger_that_a_tenant_has_made(place, tmp_path):
    """What is written to it would fire its triggers; what is kept in it is run."""
    one = member(place, "forges", TRIGGER)
    place.sql(
        f"CREATE SCHEMA {ledger.SCHEMA} AUTHORIZATION forges_owner; SET ROLE forges_owner;"
        f" CREATE TABLE {ledger.SCHEMA}.migration (schema name, version bigint, name text, checksum text,"
        "  PRIMARY KEY (schema, version));"
        f" CREATE TABLE {ledger.SCHEMA}.template (schema name PRIMARY KEY, fingerprint text, script text);"
        f" CREATE TRIGGER fired AFTER INSERT ON {ledger.SCHEMA}.migration FOR EACH ROW"
        "  EXECUTE FUNCTION forges.fire()"
    )
    try:
        with pytest.raises(Failure, match="is owned by"):
            await migrations.up([one], files(tmp_path, "UPDATE t SET id = 2"), Options())
    finally:
        place.sql(f"DROP SCHEMA {ledger.SCHEMA} CASCADE")


async def test_a_function_beside_one_of_an_extension(place):
    """… that is the better match for a call of the extension's."""
    one = member(place, "beside", TRIGGER + "CREATE TABLE seen (name text);")
    place.sql(
        "CREATE SCHEMA loose; CREATE EXTENSION pg_stat_statements SCHEMA loose;"
        "GRANT ALL ON SCHEMA loose TO beside_owner; SET ROLE beside_owner;"
        + "".join(
            f"CREATE FUNCTION loose.pg_stat_statements_reset(oid, oid, {number}) RETURNS void LANGUAGE sql AS"
            " 'INSERT INTO beside.seen VALUES (current_user)';"
            for number in ("int", *(["bigint"] if place.major >= 17 else []))
        )
    )
    connection = await place.connect()
    try:
        await erasing.forget_statements(connection, [1])
        assert await connection.fetch(f"SELECT * FROM {one.estate.schema}.seen") == []
    finally:
        await connection.close()
        place.sql("DROP SCHEMA loose CASCADE")


async def test_rights_on_what_is_another_tenants_do_not_come_along(verbs, town):
    """The names may be somebody else's where it comes to; and what it has given itself is its own."""
    for name in ("acme", "beta"):
        await verbs.tenant_onboard(NewTenant(name=name), NewAccess(login="alice"))
    with town.connect() as conn:
        conn.execute("CREATE TABLE beta.t (id int); ALTER TABLE beta.t OWNER TO beta_owner")
        conn.execute("CREATE TABLE public.own (id int); ALTER TABLE public.own OWNER TO acme_owner")
        conn.execute("CREATE TABLE public.lent (id int); ALTER TABLE public.lent OWNER TO town_admin")
        conn.execute("GRANT SELECT ON public.lent TO acme_owner")
        conn.execute("GRANT USAGE ON SCHEMA beta TO acme_owner; GRANT SELECT ON beta.t TO acme_owner")
        conn.execute("GRANT SELECT ON public.own TO acme_readonly")
    job = await verbs.tenant_clone("acme", "gamma")
    assert len([one for one in job.result["notes"] if "is another tenant's here" in one]) == 2
    with town.connect() as conn:
        found = conn.execute(
            "SELECT r.rolname, t.name FROM pg_roles r, "
            " (VALUES ('beta.t'), ('public.own'), ('public.lent')) t(name)"
            " WHERE r.rolname ~ '^gamma_' AND has_table_privilege(r.rolname, t.name, 'SELECT')"
        )
        assert found.fetchall() == [("gamma_owner", "public.lent")]


async def test_a_custom_role_that_would_be_another_tenants_owner(verbs, town):
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    await verbs.tenant_onboard(NewTenant(name="beta_eu"), NewAccess(login="bob"))
    with town.connect() as conn:
        conn.execute("CREATE TABLE acme.t (id int); ALTER TABLE acme.t OWNER TO acme_owner")
    await verbs.role_put("acme", "eu_owner", {"t": ["SELECT"]})
    with pytest.raises(Failure, match='a role "beta_eu_owner"'):
        await verbs.tenant_clone("acme", "beta")
    assert "beta_eu_owner" in town.roles()


KEYS = """
CREATE TABLE named (id int PRIMARY KEY);
CREATE TABLE child (r int REFERENCES named (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TYPE word AS ENUM ('x');
CREATE TABLE words (id word PRIMARY KEY);
CREATE TABLE said (r word REFERENCES words (id) DEFERRABLE INITIALLY DEFERRED) PARTITION BY LIST (r);
CREATE TABLE said_x PARTITION OF said FOR VALUES IN ('x');
"""


async def test_a_migration_whose_keys_are_deferred(any_place, tmp_path):
    one = member(any_place, "late_keys", TRIGGER + KEYS)
    up = (
        "INSERT INTO child VALUES (1); INSERT INTO named VALUES (1); INSERT INTO once VALUES (1);"
        "INSERT INTO said VALUES ('x'); INSERT INTO words VALUES ('x')"
    )
    (done,) = (await migrations.up([one], files(tmp_path, up), Options())).outcomes
    assert (done.state, done.error) == ("done", "")


async def test_what_a_migration_leaves_in_the_session_meets_no_other_tenant(place, tmp_path):
    leaves = """
        CREATE OR REPLACE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('search_path', 'pg_temp', false); PERFORM pg_advisory_lock(77);
        CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK ({schema}.a_taken());
        PERFORM set_config('my.remains', 'x', false); PERFORM nextval('{schema}.numbers');
        LISTEN remains; EXECUTE 'PREPARE remains AS SELECT 1'; EXECUTE 'DECLARE remains CURSOR FOR SELECT 1';
        PERFORM set_config('standard_conforming_strings', 'off', false);
        PERFORM set_config('check_function_bodies', 'off', false);
        RETURN NEW; END $$;
        CREATE SEQUENCE numbers;
    """
    first, second = member(place, "leaves", TRIGGER + leaves), member(place, "clean", TRIGGER)
    nothing = """SELECT current_user = 'leaves_owner' OR NOT EXISTS (
        SELECT FROM pg_prepared_statements UNION ALL SELECT FROM pg_listening_channels()
        UNION ALL SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
        UNION ALL SELECT FROM pg_cursors WHERE name = 'remains'
        UNION ALL SELECT WHERE current_setting('my.remains', true) <> ''
           OR current_setting('standard_conforming_strings') = 'off'
           OR current_setting('check_function_bodies') = 'off')"""
    # lastval() fails where no sequence was drawn from in the session
    up = """UPDATE t SET id = 2; CREATE TABLE more (body text);
        DO $$ BEGIN IF current_user <> 'leaves_owner' THEN
            PERFORM lastval(); RAISE assert_failure; END IF;
        EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END $$"""
    found = files(tmp_path, up, **{"1_all.check.sql": nothing})
    report = await migrations.up([first, second], found, Options(parallel=1))
    assert [(done.state, done.error) for done in report.outcomes] == [("done", "")] * 2
    assert "pg_catalog" in place.sql(
        "SELECT typnamespace::regnamespace FROM pg_type WHERE oid = (SELECT atttypid FROM pg_attribute"
        " WHERE attrelid = 'clean.more'::regclass AND attname = 'body')"
    )


async def test_a_tool(any_place):
    one = member(any_place, "tooled", TRIGGER)
    code = (
        "import os, psycopg\n"
        "with psycopg.connect(os.environ['DATABASE_URL'], autocommit=True) as conn:\n"
        "    conn.execute('UPDATE t SET id = 2')\n"
        "    conn.execute('SET ROLE NONE')\n"
        "    conn.execute('SELECT rolname FROM pg_authid')\n"
    )
    report = await migrations.execute([one], [sys.executable, "-c", code], Options())
    assert "permission denied for table pg_authid" in report.outcomes[0].error
    assert any_place.sql(f"SELECT id FROM {one.estate.schema}.t").strip() == "2"
    assert not any_place.sql("SELECT rolname FROM pg_roles WHERE rolname ~ '^tp_'").strip()


async def test_a_tool_whose_login_the_tenant_keeps(place, tmp_path):
    """Its code has it made its own: another password, a session beside the tool's, and what depends on it."""
    one = member(place, "keeps", TRIGGER)
    code = (
        "import os, psycopg, subprocess, sys\n"
        "url = os.environ['DATABASE_URL']\n"
        "with psycopg.connect(url, autocommit=True) as conn:\n"
        "    conn.execute('SET ROLE NONE')\n"
        "    (name,) = conn.execute('SELECT session_user').fetchone()\n"
        "    conn.execute(f\"ALTER ROLE {name} PASSWORD 'known'\")\n"
        "    conn.execute('SELECT lo_create(0)')\n"
        "    conn.execute('SET ROLE keeps_owner')\n"
        "    conn.execute(f'GRANT ALL ON SCHEMA keeps TO {name}')\n"
        "    conn.execute('SET ROLE NONE')\n"
        "    conn.execute('CREATE TABLE keeps.bait (id int)')\n"
        "    conn.execute('GRANT ALL ON keeps.bait TO keeps_owner')\n"
        "    conn.execute('SET ROLE keeps_owner')\n"
        "    conn.execute('CREATE VIEW keeps.hook AS SELECT * FROM keeps.bait')\n"
        "other = os.environ['DATABASE_URL'].replace('/lives?', '/postgres?')\n"
        "other = other.split('://')[0] + f'://{name}:known@' + other.split('@')[1]\n"
        "os.environ['PGOPTIONS'] = ''\n"
        "with psycopg.connect(other.split('?')[0], autocommit=True) as conn:\n"
        "    conn.execute('SELECT lo_create(0)')\n"
        "stays = 'import psycopg, sys, time; c = psycopg.connect(sys.argv[1]); time.sleep(20)'\n"
        "subprocess.Popen([sys.executable, '-c', stays, other.split('?')[0]],"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "import time; time.sleep(1)\n"
    )
    report = await migrations.execute([one], [sys.executable, "-c", code], Options())
    assert [(done.state, done.error) for done in report.outcomes] == [("done", "")]
    assert not place.sql("SELECT rolname FROM pg_roles WHERE rolname ~ '^tp_tool_'").strip()
    assert not place.sql("SELECT usename FROM pg_stat_activity WHERE usename ~ '^tp_tool_'").strip()
    assert place.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'bait'").strip() == "keeps_owner"


async def test_logins_of_tools_that_were_killed_go(place):
    one = member(place, "killed", TRIGGER)
    place.sql("CREATE ROLE tp_tool_0123456789ab LOGIN VALID UNTIL '2020-01-01' IN ROLE killed_owner")
    await migrations.execute([one], [sys.executable, "-c", ""], Options())
    assert not place.sql("SELECT rolname FROM pg_roles WHERE rolname ~ '^tp_tool_'").strip()


async def test_an_export_and_what_is_made_of_it(any_place, tmp_path):
    one = member(any_place, "copied", ROWS)
    path = tmp_path / "tenant.tar"
    manifest = await export.export(any_place.database_of(), one.estate, path, tenant="x")
    any_place.clear()
    any_place.known("copied")
    done = await restore.restore(any_place.database_of(), path)
    assert done.tables == manifest.tables


@pytest.mark.parametrize("kind", DEFINITIONS)
async def test_definitions_in_an_export(place, tmp_path, kind):
    one = member(place, f"reads_{kind}", READ + DEFINITIONS[kind] + ";")
    path = tmp_path / "tenant.tar"
    await export.export(place.database_of(), one.estate, path, tenant="x")
    place.clear()
    place.known(f"reads_{kind}")
    await restore.restore(place.database_of(), path)
    made = inventory_of(place, one.estate.schema)
    owners = {line.split("|")[-1] for line in made.splitlines()}
    assert owners == {one.estate.owner}, "nothing is left that is the restoring role's"


def inventory_of(place, schema: str) -> str:
    """name|owner, of relations and functions"""
    return str(
        place.sql(
            "SELECT relname || '|' || relowner::regrole FROM pg_class"
            f" WHERE relnamespace = '{schema}'::regnamespace"
            " UNION ALL SELECT proname || '|' || proowner::regrole FROM pg_proc"
            f" WHERE pronamespace = '{schema}'::regnamespace"
        )
    )


@pytest.mark.parametrize("kind", ["rows", *DEFINITIONS])
async def test_a_template(any_place, kind):
    made = ROWS.replace("INSERT INTO parted", "-- INSERT INTO parted") if kind == "rows" else READ
    one = member(any_place, f"golden_{kind}", made + DEFINITIONS.get(kind, "") + ";")
    target = any_place.with_roles(f"from_{kind}")
    connection = await any_place.connect()
    try:
        await templates.fill(connection, any_place.database_of(), roles_of(one.estate), roles_of(target))
        left = await connection.fetch("SELECT proname FROM pg_proc WHERE proname = 'tp_jail'")
    finally:
        await connection.close()
    assert not left
    assert {line.split("|")[-1] for line in inventory_of(any_place, target.schema).splitlines()} == {
        target.owner
    }


async def test_a_template_whose_triggers_can_be_put_off(any_place):
    one = member(any_place, "golden_late", TRIGGER + DEFERRED + "COMMENT ON TRIGGER late ON t IS 'late';")
    target = any_place.with_roles("from_late")
    connection = await any_place.connect()
    try:
        await templates.fill(connection, any_place.database_of(), roles_of(one.estate), roles_of(target))
    finally:
        await connection.close()
    assert (
        any_place.sql(
            "SELECT obj_description(oid) FROM pg_trigger"
            " WHERE tgrelid = 'from_late.t'::regclass AND tgdeferrable"
        ).strip()
        == "late"
    )


def roles_of(estate: Estate) -> templates.Roles:
    return templates.Roles(estate.schema, estate.owner, *estate.roles[:2])


async def test_an_export_of_what_can_be_put_off(any_place, tmp_path):
    late = TRIGGER + DEFERRED + (
        "CREATE TABLE busy (room int, at int4range,"
        " CONSTRAINT once EXCLUDE USING gist (at WITH &&) DEFERRABLE INITIALLY DEFERRED);"
        "COMMENT ON CONSTRAINT once ON busy IS 'not twice'; INSERT INTO busy VALUES (1, '[1,2)');"
    )  # fmt: skip
    one = member(any_place, "put_off", late)
    path = tmp_path / "tenant.tar"
    await export.export(any_place.database_of(), one.estate, path, tenant="x")
    any_place.clear()
    any_place.known("put_off")
    await restore.restore(any_place.database_of(), path)
    found = "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE condeferrable"
    assert any_place.sql(f"{found} AND connamespace = 'put_off'::regnamespace").strip() == "late once"


async def test_no_function_of_their_own_is_needed(place, tmp_path):
    as_admin = "pg_has_role(current_user, 'pg_read_server_files', 'USAGE')"
    place.with_roles("builtin")
    place.sql(
        "SET ROLE builtin_owner; SET search_path = builtin;"
        f"CREATE TABLE t (id int CHECK (NOT {as_admin})); INSERT INTO t VALUES (1)"
    )
    path = tmp_path / "tenant.tar"
    await export.export(place.database_of(), place.estate("builtin"), path, tenant="x")
    place.clear()
    place.known("builtin")
    assert (await restore.restore(place.database_of(), path)).tables[0].rows == 1


async def test_by_an_admin_who_is_no_superuser(verbs, town, tmp_path):
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    with town.connect() as conn:
        conn.execute((HOSTILE + ROWS + TAKEN).format(schema="acme"))
    await verbs.tenant_clone("acme", "beta", accept=True)
    with town.connect() as conn:
        assert conn.execute("SELECT count(*) FROM beta.t").fetchone() == (2,)
        owners = conn.execute(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'beta'::regnamespace"
        )
        assert owners.fetchall() == [("beta_owner",)]
    one = Member("acme", Database.of(verbs.context.config.clusters[0]), Estate("acme", "acme_owner"))
    for begins in ("", "-- tenant_proxy: no-transaction\n"):
        found = files(tmp_path, f"{begins}UPDATE t SET m = 'good'; CREATE TABLE more{len(begins)} ()")
        (done,) = (await migrations.up([one], found, Options())).outcomes
        # outside of a transaction it may leave the owner's role, and is nobody then
        assert done.error.startswith("version 1: permission denied" if begins else "")
        assert done.state == ("failed" if begins else "done")
        with town.connect() as conn:
            conn.execute(f"DELETE FROM {ledger.SCHEMA}.migration")
    with town.connect() as conn:
        assert not conn.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'tp_%'").fetchall()
