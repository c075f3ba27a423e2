"""Tenants whose code runs when the operator only reads what they have: PostgreSQL computes what is constant
in an index, in statistics or in a partition's key when it plans, as whoever reads."""

from __future__ import annotations

import pytest

from tenant_proxy.catalog.records import Plan, Spec
from tenant_proxy.devel.postgres import PostgresError
from tenant_proxy.lifecycle import export, reading, restore, templates
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tests.lifecycle.test_hostile_tenants import HOSTILE, TAKEN, member, roles_of

#: {schema}.fold(1) is computed when it is planned
FOLD = """
CREATE FUNCTION fold(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM {schema}.grab(); RETURN n; END $$;
CREATE TABLE t (id int PRIMARY KEY, body text);
INSERT INTO t VALUES (1, 'a'), (2, 'b');
"""
FOLDED = {
    "predicate": "CREATE INDEX folded ON t (id) WHERE id >= fold(1);",
    "expression": "CREATE INDEX folded ON t ((id + fold(1)));",
    "statistics": "CREATE STATISTICS folded ON (id + fold(1)), id FROM t;",
    "operator": """
        CREATE FUNCTION above(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM {schema}.grab(); RETURN 1; END $$;
        CREATE OPERATOR <^> (LEFTARG = int, RIGHTARG = int, FUNCTION = above);
        CREATE INDEX folded ON t (id) WHERE id >= (1 OPERATOR({schema}.<^>) 2);""",
    "domain": """
        CREATE DOMAIN checked AS int CHECK ({schema}.a_taken() AND VALUE > 0);
        CREATE INDEX folded ON t (id) WHERE id >= (abs(1))::checked;""",
}
PARTED = """
CREATE FUNCTION fold(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM {schema}.grab(); RETURN n; END $$;
CREATE TABLE parted (id int, body text) PARTITION BY RANGE ((id + fold(1)));
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
INSERT INTO parted VALUES (1, 'a');
CREATE TRIGGER fired AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER off AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION fire();
ALTER TABLE parted DISABLE TRIGGER off;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON parted DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fire();
"""
HASHED = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION fold(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM {schema}.grab(); RETURN n; END $$;
CREATE TABLE hashed (id int, m mood) PARTITION BY HASH (m, (fold(id)));
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO hashed VALUES (1, 'good'), (2, 'bad');
"""
#: … and as nothing else has been told of it yet
EMPTY = """
CREATE FUNCTION fold(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM {schema}.grab(); RETURN n; END $$;
CREATE TABLE parted (id int, body text) PARTITION BY RANGE ((id + fold(1)));
CREATE TRIGGER fired AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION fire();
"""
EMPTY_LATE = EMPTY.replace("CREATE TRIGGER fired", "CREATE CONSTRAINT TRIGGER fired").replace(
    "FOR EACH", "DEFERRABLE INITIALLY DEFERRED FOR EACH"
)
#: as it would be read with the schema first
SHADOWS = """
CREATE TABLE t (id int PRIMARY KEY, body text);
CREATE FUNCTION concat_ws(text, "char", "char", "char", bool, bool, text[], bool, text, text, text, text)
    RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM {schema}.grab(); RETURN 'x'; END $$;
CREATE FUNCTION said(text, name) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN PERFORM {schema}.grab(); RETURN 'x'; END $$;
CREATE OPERATOR || (LEFTARG = text, RIGHTARG = name, FUNCTION = said);
"""
#: what the session has prepared becomes another statement, which fails as a superuser
PLANTED = """
CREATE FUNCTION plant() RETURNS int LANGUAGE plpgsql AS $$
DECLARE one record; BEGIN
    FOR one IN SELECT name, parameter_types::text[] AS kinds FROM pg_prepared_statements LOOP
        EXECUTE format('DEALLOCATE %I', one.name);
        EXECUTE format('PREPARE %I %s AS SELECT 1 / (NOT rolsuper)::int FROM pg_roles'
            ' WHERE rolname = current_user', one.name,
            '(' || nullif(array_to_string(one.kinds, ','), '') || ')');
    END LOOP;
    RETURN 1; END $$;
CREATE TABLE t (id int CHECK (plant() > 0));
INSERT INTO t VALUES (1);
"""


async def copied(place, one, tmp_path, schema):
    path = tmp_path / "tenant.tar"
    manifest = await export.export(place.database_of(), one.estate, path, tenant="x")
    place.clear()
    place.known(schema)
    done = await restore.restore(place.database_of(), path)
    assert done.tables == manifest.tables


@pytest.mark.parametrize("kind", FOLDED)
async def test_what_is_constant_in_an_export(any_place, tmp_path, kind):
    one = member(any_place, f"folds_{kind}", FOLD + FOLDED[kind])
    await copied(any_place, one, tmp_path, f"folds_{kind}")


@pytest.mark.parametrize("made", [PARTED, EMPTY, EMPTY_LATE, HASHED], ids=["key", "empty", "late", "hashed"])
async def test_rows_in_an_export(any_place, tmp_path, made, request):
    schema = f"rows_{request.node.callspec.id.split('-')[-1]}"
    one = member(any_place, schema, made)
    await copied(any_place, one, tmp_path, schema)


@pytest.mark.parametrize(
    "made",
    [
        *(FOLD + one for one in FOLDED.values()),
        PARTED.replace("INSERT INTO", "--"),
        EMPTY,
        EMPTY_LATE,
        SHADOWS,
        PLANTED,
    ],
    ids=[*FOLDED, "key", "empty", "late", "shadows", "planted"],
)
async def test_a_template(any_place, made, request):
    kind = request.node.callspec.id.split("-")[-1]
    one = member(any_place, f"golden_{kind}", made)
    target = any_place.with_roles(f"from_{kind}")
    connection = await any_place.connect()
    try:
        for _ in range(2):
            await templates.fill(connection, any_place.database_of(), roles_of(one.estate), roles_of(target))
            templates._seen.clear()
            any_place.sql(
                f"DROP SCHEMA {target.schema} CASCADE;"
                f" CREATE SCHEMA {target.schema} AUTHORIZATION {target.owner}"
            )
    finally:
        await connection.close()


async def test_a_table_that_becomes_a_view(any_place, tmp_path):
    one = member(any_place, "swaps", FOLD + "CREATE TABLE u (id int); INSERT INTO u VALUES (1);")

    def swap(what, done, total):
        if what == "count" and done == 0:
            any_place.sql(
                "SET lock_timeout = '1s'; SET ROLE swaps_owner;"
                "DROP TABLE swaps.u; CREATE VIEW swaps.u AS SELECT swaps.a_taken() AS id"
            )

    found = await reading.read_tables(any_place.database_of(), one.estate, swap)
    assert [table.rows for table in found] == [2, 1]


@pytest.mark.parametrize("kind", ["predicate", "statistics"])
async def test_a_sequence_that_becomes_a_table(any_place, tmp_path, kind):
    """pg_dump reads a sequence by its name, and locks none."""
    one = member(any_place, "turns", FOLD + "CREATE SEQUENCE s;")
    swapped = []

    def swap(what, done, total):
        if what == "dump" and done == 0:
            try:
                any_place.sql(
                    "SET lock_timeout = '1s'; SET ROLE turns_owner; SET search_path = turns; BEGIN;"
                    "DROP SEQUENCE s; CREATE TABLE s (id int, last_value bigint, is_called bool);"
                    + FOLDED[kind].format(schema="turns").replace(" t ", " s ").replace("FROM t;", "FROM s;")
                    + "COMMIT"
                )
            except PostgresError as error:
                swapped.append(str(error))

    path = tmp_path / "tenant.tar"
    await export.export(any_place.database_of(), one.estate, path, tenant="x", progress=swap)
    assert "lock timeout" in swapped[0]


async def test_a_table_that_its_owner_can_not_read(any_place):
    """… is read by the admin, as long as reading it runs nothing of the tenant's."""
    made = FOLD + "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;"
    one = member(any_place, "hides", made)
    found = await reading.read_tables(any_place.database_of(), one.estate)
    assert [table.rows for table in found] == [2]
    any_place.sql("SET ROLE hides_owner; SET search_path = hides;" + FOLDED["predicate"])
    with pytest.raises(reading.Unreadable):
        await reading.read_tables(any_place.database_of(), one.estate)
    found = await reading.read_tables(any_place.database_of(), one.estate, lenient=True)
    assert [table.rows for table in found] == [reading.UNKNOWN]


async def test_a_late_trigger_with_a_condition(any_place, tmp_path):
    made = FOLD + (
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " WHEN (NEW.id > 1) EXECUTE FUNCTION fire();"
    )
    one = member(any_place, "conditional", made)
    await copied(any_place, one, tmp_path, "conditional")


async def test_all_of_it_by_an_admin_who_is_no_superuser(verbs, town):
    everything = FOLD + "".join(FOLDED.values()).replace("INDEX folded", "INDEX").replace("grab", "a_taken")
    everything += PARTED.split("END $$;\n", 1)[1] + HASHED.split("END $$;\n", 1)[1].join(
        ("CREATE TYPE mood AS ENUM ('good', 'bad');", "CREATE SEQUENCE s;")
    )
    await verbs.tenant_onboard(NewTenant(name="acme"), NewAccess(login="alice"))
    with town.connect() as conn:
        conn.execute((HOSTILE + everything + TAKEN).format(schema="acme"))
    await verbs.tenant_clone("acme", "beta", accept=True)
    await verbs.plan_put(Plan(name="like", spec=Spec(template="acme")))
    await verbs.tenant_onboard(NewTenant(name="gamma", plan="like"), NewAccess(login="bob"))
    await verbs.tenant_scan("acme")
    for name in ("acme", "beta", "gamma"):
        await verbs.tenant_delete(name, grace_s=0)
        job = await verbs.tenant_erase(name)
        assert job.result["record"]["rows"]["t"] == 2


async def test_tables_of_the_tenants_other_roles(any_place, tmp_path):
    any_place.with_roles("several")
    any_place.sql(
        "GRANT CREATE ON SCHEMA several TO several_readwrite; SET search_path = several;"
        "SET ROLE several_owner; CREATE TABLE named (id int PRIMARY KEY);"
        "GRANT REFERENCES, SELECT ON named TO several_readwrite;"
        "SET ROLE several_readwrite; CREATE TABLE t (id int PRIMARY KEY REFERENCES named CHECK (id >= 0));"
        "CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER fired AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION fire();"
        "CREATE POLICY all_of_it ON t USING (true); ALTER TABLE t REPLICA IDENTITY USING INDEX t_pkey;"
        "SET ROLE several_owner; INSERT INTO named VALUES (1);"
        "SET ROLE several_readwrite; INSERT INTO t VALUES (1);"
    )
    path = tmp_path / "tenant.tar"
    estate = any_place.estate("several")
    standard = ("several_readwrite", "several_readonly")
    manifest = await export.export(any_place.database_of(), estate, path, tenant="x", standard=standard)
    any_place.clear()
    any_place.known("several")
    assert (await restore.restore(any_place.database_of(), path)).tables == manifest.tables


async def test_code_that_never_ends_keeps_no_tenant_from_its_erasure(any_place, monkeypatch):
    monkeypatch.setattr(reading, "PATIENCE_S", 1.0)
    made = FOLD + (
        "CREATE TABLE u (id int); CREATE INDEX folded ON u (id) WHERE id >= fold(1); CREATE TABLE z (id int);"
    )
    one = member(any_place, "endless", made)
    any_place.sql(
        "SET ROLE endless_owner; CREATE OR REPLACE FUNCTION endless.a_taken() RETURNS boolean"
        " LANGUAGE plpgsql AS $$ BEGIN"
        " LOOP BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN END; END LOOP; END $$"
    )
    found = await reading.read_tables(any_place.database_of(), one.estate, lenient=True)
    assert [table.rows for table in found] == [2, reading.UNKNOWN, reading.UNKNOWN]
    left = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    assert any_place.sql(left).strip() == "0"


async def test_a_table_that_somebody_holds_keeps_no_tenant_from_its_erasure(place, monkeypatch):
    monkeypatch.setattr(reading, "LOCK_TIMEOUT", "100ms")
    one = member(place, "holds", FOLD + "CREATE TABLE u (id int);")
    connection = await place.connect()
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE holds.t")
            found = await reading.read_tables(place.database_of(), one.estate, lenient=True)
    finally:
        await connection.close()
    assert [table.rows for table in found] == [reading.UNKNOWN, 0]
