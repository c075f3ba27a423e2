"""Nothing of a tenant's is taken for what the shims mean, though its names come before pg_catalog's."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tenant_proxy.shims import names
from tests.shims.conftest import OTHER, OWN, Tenants

pytestmark = pytest.mark.timeout(120)

#: types, operators and functions like those of pg_catalog, in one's own schema and in pg_temp; whoever calls
#: or fills one of these fails
SHADOWS = """
DO $make$
DECLARE
    made record;
BEGIN
    EXECUTE 'CREATE SCHEMA shadows AUTHORIZATION ' || current_setting('shadows.owner');
    GRANT USAGE ON SCHEMA shadows TO PUBLIC;
    SET LOCAL search_path = pg_catalog;
    FOR made IN
        SELECT o.oprname, 'operator_' || o.oid AS name, format_type(o.oprleft, NULL) AS l,
               format_type(o.oprright, NULL) AS r, format_type(o.oprresult, NULL) AS result
          FROM pg_operator o
         WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
           AND (o.oprleft = ANY ({types}) OR o.oprright = ANY ({types}))
           AND NOT EXISTS (
               SELECT FROM pg_type t WHERE t.oid IN (o.oprleft, o.oprright) AND t.typtype = 'p')
    LOOP
        EXECUTE format(
            'CREATE FUNCTION shadows.%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS '
            '$f$ BEGIN RAISE EXCEPTION ''shadowed operator''; END $f$',
            made.name, made.l, made.r, made.result);
        EXECUTE format('CREATE OPERATOR shadows.%s (FUNCTION = shadows.%s, LEFTARG = %s, RIGHTARG = %s)',
                       made.oprname, made.name, made.l, made.r);
    END LOOP;
    FOR made IN
        SELECT DISTINCT ON (p.proname, p.proargtypes) quote_ident(p.proname) AS name,
               (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n)
                  FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, n)) AS args
          FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
           AND NOT EXISTS (
               SELECT FROM unnest(p.proargtypes) a JOIN pg_type t ON t.oid = a WHERE t.typtype = 'p')
           AND p.prosrc ~ '^(has_|pg_|array_|text|name|oid|lower|replace|regexp|quote|acl|length|substr)'
    LOOP
        EXECUTE format(
            'CREATE FUNCTION shadows.%s(%s) RETURNS int LANGUAGE plpgsql AS '
            '$f$ BEGIN RAISE EXCEPTION ''shadowed function''; END $f$', made.name, made.args);
    END LOOP;
    -- last, as names above are to be those of pg_catalog
    FOR made IN
        SELECT quote_ident(t.typname) AS name FROM pg_type t
         WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype = 'b' AND t.typname !~ '^(_|pg_)'
    LOOP
        EXECUTE format('CREATE TYPE shadows.%s AS (shadow int)', made.name);
    END LOOP;
END $make$;
""".replace("{types}", "'{oid,name,text,int4,int8,bool,_oid,_name,_text,aclitem,_aclitem}'::regtype[]")

CASTS = """
CREATE FUNCTION shadows.cast_to(pg_catalog.{of}) RETURNS shadows.{of} LANGUAGE plpgsql AS
    $f$ BEGIN RAISE EXCEPTION 'shadowed cast'; END $f$;
CREATE CAST (pg_catalog.{of} AS shadows.{of}) WITH FUNCTION shadows.cast_to(pg_catalog.{of}) AS ASSIGNMENT;
"""


@pytest.fixture(scope="module")
def shadowed(tenants: Tenants) -> Iterator[Tenants]:
    with tenants.superuser() as connection:
        connection.execute("SELECT set_config('shadows.owner', %s, false)", (f"{OWN}_app",))
        connection.execute(SHADOWS.encode())
        for of in ("oid", "name", "text"):
            connection.execute(CASTS.replace("{of}", of).encode())
    yield tenants
    with tenants.superuser() as connection:
        connection.execute("DROP SCHEMA shadows CASCADE")


def answers(connection: psycopg.Connection, others: list[int]) -> dict[str, object]:
    """What the shims say."""
    found: dict[str, object] = {}
    for name in sorted(names.RELATIONS):
        try:
            with connection.transaction():
                row = connection.execute(f"SELECT pg_catalog.count(x) FROM tp_catalog.{name} x").fetchone()
                found[name] = row
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable) as error:
            found[name] = error.sqlstate
    for call in (
        *(f"tp_catalog.pg_get_viewdef({one}::pg_catalog.oid)" for one in others),
        *(f"tp_catalog.pg_describe_object(1259, {one}::pg_catalog.oid, 0)" for one in others),
        *(
            f"tp_catalog.sees({kind}, {one})"
            for one in others
            for kind in (1259, 1247, 1255, 2606, 2618, 3079)
        ),
        "pg_catalog.cardinality(tp_catalog.schemas())",
        "pg_catalog.cardinality(tp_catalog.relations(true))",
        "tp_catalog.dynamic('select 1 from pg_class where \"a\" = $$x$$')",
        f"tp_catalog.dynamic('set local search_path = {OWN}')",
        "tp_catalog.lock_mask()",
    ):
        found[call] = connection.execute(f"SELECT {call}::pg_catalog.text".encode()).fetchone()
    return found


@pytest.mark.parametrize("path", ["shadows, pg_catalog", "pg_temp, pg_catalog"])
def test_shadows_are_not_seen(shadowed: Tenants, path: str):
    with shadowed.superuser() as connection:
        others = [
            row[0]
            for row in connection.execute(
                "SELECT c.oid::int FROM pg_class c WHERE relnamespace = %s::regnamespace AND relkind = 'v'",
                (OTHER,),
            )
        ]
    assert others
    found = []
    for search_path in (OWN, path):
        with shadowed.tenant() as connection:
            kinds = ("oid", "name", "text") if path.startswith("pg_temp") else ("before",)
            for kind in kinds:
                connection.execute(f"CREATE TYPE pg_temp.{kind} AS (shadow int)")
            connection.execute(f"SET search_path = {search_path}")
            found.append(answers(connection, others))
    assert found[1] == found[0]


def test_an_operator_does_not_decide_whose_definition_is_shown(tenants: Tenants):
    """PostgreSQL looks for a view's rule, and for a schema's tables, with a `=` that has no schema."""
    with tenants.superuser() as connection:
        row = connection.execute("SELECT %s::regclass::oid::int", (f"{OTHER}.{OTHER}_view",)).fetchone()
        assert row is not None
        view = row[0]
    with tenants.tenant() as connection:
        connection.autocommit = False
        connection.execute(
            "CREATE FUNCTION this(oid, oid) RETURNS bool LANGUAGE sql IMMUTABLE AS "
            f"$$ SELECT $1 OPERATOR(pg_catalog.=) {view} $$;"
            "CREATE OPERATOR = (FUNCTION = this, LEFTARG = oid, RIGHTARG = oid);"
            "CREATE FUNCTION this(name, name) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
            "CREATE OPERATOR = (FUNCTION = this, LEFTARG = name, RIGHTARG = name);"
            "CREATE FUNCTION this(oid, int) RETURNS bool LANGUAGE sql IMMUTABLE AS "
            "$$ SELECT $1 OPERATOR(pg_catalog.=) 11::oid $$;"
            "CREATE OPERATOR = (FUNCTION = this, LEFTARG = oid, RIGHTARG = int)"
        )
        connection.execute(f"SET search_path = {OWN}, pg_catalog")
        for call in (
            f"tp_catalog.pg_get_viewdef('{OWN}_view'::pg_catalog.regclass::pg_catalog.oid)",
            "(SELECT v.definition FROM tp_catalog.pg_views v"
            f" WHERE v.viewname OPERATOR(pg_catalog.=) '{OWN}_view')",
            "(SELECT v.view_definition FROM tp_information_schema.views v"
            f" WHERE v.table_name::pg_catalog.text OPERATOR(pg_catalog.=) '{OWN}_view')",
            f"tp_catalog.schema_to_xmlschema('{OWN}', true, true, '')",
        ):
            assert connection.execute(f"SELECT {call}").fetchone() == (None,), call
        connection.rollback()
