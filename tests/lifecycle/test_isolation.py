"""Isolation without the proxy: past it no tenant's login reaches anything of another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from tenant_proxy.catalog.records import Level
from tenant_proxy.config.schema import Config
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_lifecycle import Town, make_town

LEVELS = ("owner", "readwrite", "readonly")

OBJECTS = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE secrets (id int PRIMARY KEY, body text, m mood DEFAULT 'good');
INSERT INTO secrets VALUES (1, 'of {name}');
CREATE TABLE parts (id int, at int) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE VIEW shown AS SELECT * FROM secrets;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM secrets;
CREATE SEQUENCE numbers;
CREATE FUNCTION told() RETURNS text LANGUAGE sql AS $$ SELECT 'of {name}' $$;
CREATE FUNCTION told_by_owner() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT 'of {name}' $$;
CREATE PROCEDURE emptied() LANGUAGE sql AS $$ DELETE FROM secrets $$;
CREATE FUNCTION made() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
"""

#: what a login of one tenant must not be able to do to {other}; {oid} is a large object of it
ATTACKS = """
SELECT * FROM {other}.secrets
SELECT * FROM {other}.shown
SELECT * FROM {other}.kept
SELECT * FROM {other}.parts_1
TABLE {other}.secrets
SELECT count(*) FROM {other}.secrets
SELECT 'good'::{other}.mood
SELECT 1::{other}.positive
SELECT {other}.told()
SELECT {other}.told_by_owner()
CALL {other}.emptied()
SELECT nextval('{other}.numbers')
SELECT last_value FROM {other}.numbers
SELECT setval('{other}.numbers', 5)
INSERT INTO {other}.secrets VALUES (2, 'x')
UPDATE {other}.secrets SET body = 'x'
DELETE FROM {other}.secrets
MERGE INTO {other}.secrets s USING (SELECT 1 AS id) v ON s.id = v.id WHEN MATCHED THEN DELETE
TRUNCATE {other}.secrets
LOCK TABLE {other}.secrets
COPY {other}.secrets TO STDOUT
CREATE TABLE {other}.mine (id int)
CREATE TABLE stolen (LIKE {other}.secrets)
CREATE TABLE stolen AS SELECT * FROM {other}.secrets
CREATE TEMP TABLE stolen (id int REFERENCES {other}.secrets)
CREATE TEMP TABLE stolen () INHERITS ({other}.secrets)
CREATE TEMP TABLE stolen (m {other}.mood)
ALTER TABLE {other}.secrets ADD stolen int
ALTER TABLE {other}.secrets OWNER TO CURRENT_USER
ALTER TABLE {other}.secrets SET SCHEMA public
DROP TABLE {other}.secrets
DROP SCHEMA {other} CASCADE
DROP FUNCTION {other}.told()
COMMENT ON TABLE {other}.secrets IS 'x'
CREATE TRIGGER x BEFORE INSERT ON {other}.secrets FOR EACH ROW EXECUTE FUNCTION {other}.made()
CREATE INDEX ON {other}.secrets (body)
REFRESH MATERIALIZED VIEW {other}.kept
GRANT SELECT ON {other}.secrets TO CURRENT_USER
GRANT {other}_owner TO CURRENT_USER
GRANT {other}_readonly TO CURRENT_USER
ALTER DEFAULT PRIVILEGES FOR ROLE {other}_owner GRANT ALL ON TABLES TO PUBLIC
ALTER SCHEMA {other} OWNER TO CURRENT_USER
ALTER ROLE {other} PASSWORD 'x'
ALTER ROLE {other} SET search_path = public
DROP ROLE {other}_readonly
SET ROLE {other}_owner
SET ROLE {other}_readwrite
SET ROLE {other}_readonly
SET ROLE {other}
SET ROLE postgres
SET SESSION AUTHORIZATION {other}
RESET ROLE; SET ROLE {other}_owner
REASSIGN OWNED BY {other}_owner TO CURRENT_USER
DROP OWNED BY {other}_owner
SET search_path = {other}; SELECT * FROM secrets
DO $$ BEGIN EXECUTE 'DELETE FROM {other}.secrets'; END $$
DO $$ BEGIN PERFORM set_config('role', '{other}_owner', false); END $$
SELECT lo_get({oid})
SELECT lo_unlink({oid})
SELECT loread(lo_open({oid}, 262144), 10)
SELECT * FROM pg_catalog.pg_authid
SELECT * FROM pg_catalog.pg_largeobject
SELECT * FROM pg_catalog.pg_statistic
SELECT pg_read_file('/etc/passwd')
SELECT pg_ls_dir('/')
CREATE SCHEMA mine
CREATE TABLE public.mine (id int)
CREATE ROLE mine
CREATE DATABASE mine
CREATE EXTENSION pageinspect
CREATE PUBLICATION p FOR TABLE {other}.secrets
CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p
ALTER SYSTEM SET work_mem = '1MB'
COPY (SELECT 1) TO PROGRAM 'true'
VACUUM {other}.secrets; SELECT 1 FROM {other}.secrets
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{other}'
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = '{other}'
"""

#: statements that only those who own what they name may try at all, and that PostgreSQL lets pass with a
#: warning rather than an error
MOST_COMMON = "SELECT tablename, most_common_vals FROM pg_stats WHERE schemaname = '{other}'"
ACTIVITY = "SELECT query FROM pg_stat_activity WHERE usename = '{other}'"


@pytest.fixture(scope="module")
def two(pg, catalog_template) -> Iterator[tuple[Town, dict[str, str]]]:
    """Two tenants with a login of each level, and the logins' passwords."""
    name = "catalog_isolation"
    with pg.connect(database="postgres") as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {catalog_template}")
    town = make_town(pg, pg.dsn(database=name))
    passwords: dict[str, str] = {}

    async def make() -> None:
        config = Config.model_validate(town.config())
        async with await Context.open(config, "anna") as context:
            verbs = Verbs(context)
            for tenant in ("aaa", "bbb"):
                done = await verbs.tenant_onboard(NewTenant(name=tenant), NewAccess(login=tenant))
                passwords[tenant] = done.granted.password or ""
                for level in LEVELS[1:]:
                    new = NewAccess(login=f"{tenant}-{level}", level=Level(level))
                    passwords[new.login] = (await verbs.access_grant(tenant, new)).password or ""

    asyncio.run(make())
    for tenant in ("aaa", "bbb"):
        with town.connect(tenant, passwords[tenant]) as conn:
            conn.execute(OBJECTS.format(name=tenant).encode())
            conn.execute("ANALYZE secrets")
    yield town, passwords
    town.clear()
    with pg.connect(database="postgres") as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("tenant", "other"), [("aaa", "bbb"), ("bbb", "aaa")])
def test_nothing_of_another_is_reached(two, tenant, other, level):
    town, passwords = two
    login = tenant if level == "owner" else f"{tenant}-{level}"
    with town.connect(other, passwords[other]) as theirs:
        (oid,) = theirs.execute("SELECT lo_from_bytea(0, 'of them')").fetchone()
        with town.connect(login, passwords[login]) as conn:
            for line in ATTACKS.strip().splitlines():
                attack = line.format(other=other, oid=oid)
                with pytest.raises(psycopg.Error):
                    for statement in attack.split("; ") if "DO $$" not in attack else [attack]:
                        cursor = conn.execute(statement)
                        if cursor.description is None and cursor.statusmessage == "VACUUM":
                            continue
                    pytest.fail(f"{login} may: {attack}")
                assert conn.execute("SELECT session_user").fetchone() == (login,)
                conn.execute("RESET ROLE; RESET search_path")
            for line in (MOST_COMMON, ACTIVITY):
                for row in conn.execute(line.format(other=other)).fetchall():
                    assert row[-1] in (None, "<insufficient privilege>"), row
        theirs.execute("SELECT lo_unlink(%s)", (oid,))
        assert theirs.execute("SELECT id, body FROM secrets").fetchall() == [(1, f"of {other}")]


@pytest.mark.parametrize("level", LEVELS)
def test_each_reaches_what_is_its_own(two, level):
    town, passwords = two
    login = "aaa" if level == "owner" else f"aaa-{level}"
    with town.connect(login, passwords[login]) as conn:
        assert conn.execute("SELECT body, m FROM secrets").fetchall() == [("of aaa", "good")]
        assert conn.execute("SELECT told(), told_by_owner()").fetchone() == ("of aaa", "of aaa")
        assert conn.execute("SELECT count(*) FROM shown, kept, parts").fetchone() == (0,)
