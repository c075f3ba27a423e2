"""An existing schema is scanned for what breaks isolation, and mended by the SQL that the scan gives."""

from __future__ import annotations

from tenant_proxy.lifecycle import adopting
from tenant_proxy.lifecycle.inventory import Estate

UNSAFE = """
CREATE SCHEMA legacy;
CREATE SCHEMA other_one;
CREATE ROLE stranger NOLOGIN;
CREATE ROLE legacy_app LOGIN CREATEROLE;
GRANT pg_read_all_data TO legacy_app;
CREATE TABLE other_one.t (id int PRIMARY KEY);
CREATE TABLE legacy.orders (id int PRIMARY KEY, other int REFERENCES other_one.t, secret text, n serial);
CREATE SEQUENCE legacy.numbers;
CREATE TYPE legacy.mood AS ENUM ('a');
CREATE VIEW other_one.peek AS SELECT * FROM legacy.orders;
ALTER TABLE legacy.orders OWNER TO legacy_app;
GRANT USAGE ON SCHEMA legacy TO PUBLIC;
GRANT SELECT ON legacy.orders TO PUBLIC;
GRANT UPDATE (secret) ON legacy.orders TO stranger;
GRANT SELECT ON other_one.t TO legacy_app;
GRANT CREATE ON DATABASE lives TO legacy_app;
CREATE FUNCTION legacy.dangerous() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
CREATE FUNCTION legacy.dynamic(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$;
CREATE FUNCTION legacy.constant() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1'; END $$;
CREATE FUNCTION legacy.reaches() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN RETURN (SELECT count(*) FROM other_one.t); END $$;
"""
FOUND = {
    ("breaks", "code_cross_schema", "legacy.reaches()"),
    ("breaks", "grant_to_others", "legacy.orders.secret"),
    ("breaks", "grant_to_public", "legacy"),
    ("breaks", "grant_to_public", "legacy.orders"),
    ("breaks", "membership", "legacy_app"),
    ("breaks", "owned_by_others", "legacy"),
    ("breaks", "owned_by_others", "legacy.numbers"),
    ("breaks", "owned_by_others", "legacy.mood"),
    ("breaks", "reference_in", "rule _RETURN on view other_one.peek"),
    ("breaks", "reference_out", "constraint orders_other_fkey on table legacy.orders"),
    ("breaks", "right_elsewhere", "lives"),
    ("breaks", "right_elsewhere", "other_one.t"),
    ("breaks", "role_power", "legacy_app"),
    ("breaks", "security_definer", "legacy.dangerous()"),
    ("doubt", "dynamic_sql", "legacy.dynamic(text)"),
    ("note", "owned_by_others", "legacy.orders"),
}


async def test_what_breaks_isolation_is_found_and_mended(any_place):
    estate = Estate("legacy", "legacy_owner", ("legacy_app", "legacy_readwrite"))
    any_place.sql(UNSAFE)
    connection = await any_place.connect()
    await connection.execute("SET search_path = ''")
    try:
        found = await adopting.scan(connection, estate)
        assert {(one.weight, one.kind, one.object) for one in found} >= FOUND
        assert "legacy.constant()" not in {one.object for one in found if one.weight == "doubt"}
        await connection.execute("CREATE ROLE legacy_owner NOLOGIN")
        await connection.execute(adopting.script(found))
        left = {(one.kind, one.object) for one in await adopting.scan(connection, estate)}
        # what nobody can decide by a rule stays
        assert left == {
            ("code_cross_schema", "legacy.reaches()"),
            ("dynamic_sql", "legacy.dynamic(text)"),
            ("reference_in", "rule _RETURN on view other_one.peek"),
            ("reference_out", "constraint orders_other_fkey on table legacy.orders"),
        }
    finally:
        await connection.close()
        any_place.sql(
            "DROP SCHEMA legacy, other_one CASCADE; DROP OWNED BY legacy_app, legacy_owner, stranger;"
            "DROP ROLE legacy_app; DROP ROLE IF EXISTS legacy_owner; DROP ROLE stranger"
        )
