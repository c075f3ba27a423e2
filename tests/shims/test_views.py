"""What a tenant's role reads through the views: its own and the system's, and nobody else's."""

from __future__ import annotations

import re

import psycopg
import pytest

from tenant_proxy.shims import names
from tenant_proxy.shims.generate import SCHEMAS
from tests.shims.conftest import OTHER, OWN, Tenants

pytestmark = pytest.mark.timeout(180)


def relations(connection: psycopg.Connection, schema: str) -> list[str]:
    rows = connection.execute(
        "SELECT c.relname::text FROM pg_class c"
        " WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'v') ORDER BY 1",
        (schema,),
    )
    return [row[0] for row in rows]


def test_every_relation_of_the_catalogs_is_classified(tenants: Tenants):
    """One that a new server adds is hidden until somebody has looked at it."""
    data = names.load()
    known = [*data["tables"], *data["views"], *data["plain"], *data["refused"]]
    assert len(known) == len(set(known))
    information = data["information_schema"]
    known_too = [
        *information["by_schemas"], *information["views"], *information["plain"], *information["refused"]
    ]  # fmt: skip
    assert len(known_too) == len(set(known_too))
    with tenants.superuser() as connection:
        assert set(relations(connection, "pg_catalog")) - set(known) == set()
        assert set(relations(connection, "information_schema")) - set(known_too) == set()
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'"
        )
        stored = {row[0] for row in tables}
        assert stored & set(data["views"]) == set()
        # whoever reads system columns of a view gets what PostgreSQL says of views
        assert stored >= names.SYSTEM_RELATIONS


def test_what_the_data_names_is_installed(tenants: Tenants):
    with tenants.superuser() as connection:
        there = set(relations(connection, "pg_catalog"))
        assert set(relations(connection, names.CATALOG)) == names.RELATIONS & there
        assert set(relations(connection, names.SYSTEM)) == names.SYSTEM_RELATIONS & there
        assert set(relations(connection, names.LISTING)) == names.LISTED_RELATIONS
        there = set(relations(connection, "information_schema"))
        assert set(relations(connection, names.INFORMATION)) == names.INFORMATION_RELATIONS & there


def test_columns_are_the_originals(tenants: Tenants):
    """Names, order and types; what may differ is said here."""
    with tenants.superuser() as connection:
        columns = """
            SELECT n.nspname AS schema, c.relname::text AS name,
                   array_agg(a.attname || ' ' || format_type(a.atttypid, -1) ORDER BY attnum) AS columns
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON attrelid = c.oid WHERE attnum > 0 GROUP BY 1, 2"""
        rows = connection.execute(
            f"SELECT v.name, v.columns, o.columns FROM ({columns}) v LEFT JOIN ({columns}) o"
            " ON o.name = v.name"
            " AND o.schema = CASE WHEN v.schema = %s THEN 'information_schema' ELSE 'pg_catalog' END"
            " WHERE v.schema = ANY (%s)",
            (names.INFORMATION, [names.CATALOG, names.LISTING, names.INFORMATION]),
        ).fetchall()
        assert len(rows) > 150
        for name, ours, originals in rows:
            assert ours == [column.replace(" anyarray", " text") for column in originals], name


@pytest.mark.parametrize("public", [False, True])
def test_no_view_shows_anything_of_another_tenant(tenants: Tenants, public: bool):
    """Names, values, comments, definitions, grants; in what a row as a whole looks like."""
    with tenants.superuser() as connection:
        views = [(schema, name) for schema in SCHEMAS for name in relations(connection, schema)]
    shown, leaked, named = {}, {}, {}
    with tenants.tenant(public=public) as connection:
        for schema, name in views:
            if public and name == "element_types":
                continue  # its plan takes PostgreSQL 15 eight seconds, with views or without
            rows = [row[0] for row in connection.execute(f"SELECT t::text FROM {schema}.{name} t")]
            leaked[f"{schema}.{name}"] = [row for row in rows if OTHER in row]
            named[f"{schema}.{name}"] = [
                row for row in rows if re.search("tp_catalog|tp_info|tenant_proxy", row)
            ]
            shown[f"{schema}.{name}"] = any(OWN in row for row in rows)
    assert {name: rows for name, rows in leaked.items() if rows} == {}
    assert {name: rows for name, rows in named.items() if rows} == {}
    # the same search finds the tenant's own, so it is not blind
    blind = {name for name, found in shown.items() if not found}
    assert {f"tp_catalog.{name}" for name in SHOWS_OWN.split()} & blind == set()
    assert len(blind) < len(shown) / 2


#: relations in which the tenant must find itself
SHOWS_OWN = """
pg_aggregate pg_attribute pg_class pg_collation pg_constraint pg_conversion pg_db_role_setting
pg_description pg_enum pg_foreign_table pg_indexes pg_matviews pg_namespace pg_opclass
pg_opfamily pg_policies pg_policy pg_prepared_xacts pg_proc pg_publication pg_publication_tables
pg_rewrite pg_roles pg_rules pg_sequences pg_shdescription pg_stat_activity pg_stat_user_indexes
pg_stat_user_tables pg_statio_user_sequences pg_statistic_ext pg_stats pg_stats_ext pg_tables pg_trigger
pg_ts_config pg_ts_dict pg_ts_parser pg_ts_template pg_type pg_user pg_views
"""


def test_rows_are_those_of_the_originals(tenants: Tenants):
    """Of one's own schema and the system's nothing is missing, and the forms of a view agree."""
    with tenants.superuser() as connection:
        connection.execute("SELECT set_config('tenant_proxy.schema', %s, false)", (OWN,))
        for name, schema in {
            "pg_class": "relnamespace", "pg_proc": "pronamespace", "pg_type": "typnamespace",
            "pg_constraint": "connamespace", "pg_operator": "oprnamespace", "pg_namespace": "oid",
        }.items():  # fmt: skip
            original = connection.execute(
                f"SELECT oid FROM pg_catalog.{name} WHERE {schema} = ANY (%s::regnamespace[]) ORDER BY 1",
                (["pg_catalog", "information_schema", OWN],),
            ).fetchall()
            toast = " WHERE nspname <> 'pg_toast'" if name == "pg_namespace" else ""
            viewed = connection.execute(f"SELECT oid FROM tp_catalog.{name}{toast} ORDER BY 1").fetchall()
            assert viewed == original, name
            if name != "pg_class":
                with_system = connection.execute(
                    f"SELECT oid FROM tp_catalog_sys.{name}{toast} ORDER BY 1"
                ).fetchall()
                assert with_system == original, name
        for name in names.LISTED_RELATIONS:
            listed = connection.execute(f"SELECT oid FROM tp_catalog_list.{name} ORDER BY 1").fetchall()
            assert listed == connection.execute(f"SELECT oid FROM tp_catalog.{name} ORDER BY 1").fetchall()
        toasted = connection.execute(
            "SELECT c.relname, x.relname FROM tp_catalog_sys.pg_class c"
            " JOIN tp_catalog_sys.pg_class x ON x.oid = c.reltoastrelid"
            " WHERE c.relnamespace = %s::regnamespace",
            (OWN,),
        ).fetchall()
        assert f"{OWN}_things" in {row[0] for row in toasted}


def test_what_the_operator_has_a_mapping_log_in_with_is_not_shown(tenants: Tenants):
    with tenants.tenant() as connection:
        query = "SELECT umoptions FROM {}.pg_user_mappings WHERE srvname = %s"
        for schema, shown in (("pg_catalog", [f"user={OWN} user"]), ("tp_catalog", None)):
            found = connection.execute(query.format(schema), (f"{OWN}_server",)).fetchall()
            assert found == [(shown,)]


def test_system_columns(tenants: Tenants):
    with tenants.tenant() as connection:
        row = connection.execute(
            "SELECT tableoid = 'pg_class'::regclass, ctid IS NOT NULL, xmin IS NOT NULL"
            " FROM tp_catalog_sys.pg_class WHERE relname = %s",
            (f"{OWN}_things",),
        ).fetchone()
        assert row == (True, True, True)


def test_temporary_objects_are_one_s_own(tenants: Tenants):
    with tenants.tenant() as connection, tenants.tenant() as another:
        connection.execute("CREATE TEMP TABLE passing (id int PRIMARY KEY, word text)")
        for view in ("tp_catalog.pg_class", "tp_catalog_list.pg_class", "tp_catalog_sys.pg_class"):
            sql = f"SELECT relname FROM {view} WHERE relname LIKE 'passing%' ORDER BY 1"
            assert connection.execute(sql).fetchall() == [("passing",), ("passing_pkey",)]
            assert another.execute(sql).fetchall() == []
        sql = "SELECT conname FROM tp_catalog.pg_constraint WHERE conname = 'passing_pkey'"
        assert connection.execute(sql).fetchall() == [("passing_pkey",)]
        assert another.execute(sql).fetchall() == []


def test_without_settings_nobody_is_shown(tenants: Tenants):
    with tenants.server.connect(f"{OWN}_app", "secret", tenants.database) as connection:
        sql = "SELECT nspname FROM tp_catalog.pg_namespace ORDER BY 1"
        shown = [row[0] for row in connection.execute(sql)]
        assert shown == ["information_schema", "pg_catalog", "pg_toast"]
        with pytest.raises(psycopg.errors.UndefinedObject, match=r"tenant_proxy\.space"):
            connection.execute("SELECT tp_catalog.pg_advisory_lock(1)")


def test_readable_schemas_are_shown(tenants: Tenants):
    with tenants.tenant() as connection:
        sql = "SELECT relname FROM tp_catalog.pg_class WHERE relname = 'shared'"
        assert connection.execute(sql).fetchall() == [("shared",)]
        connection.execute("SET tenant_proxy.readable = ''")
        assert connection.execute(sql).fetchall() == []


#: by which indexes find one object among all; regclass, regproc and regtype tell them as well
FOUND_BY_INDEX = frozenset(
    {"relname", "indexrelname", "tablename", "viewname", "matviewname", "indexname", "sequencename"}
    | {"funcname", "proname", "typname"}
)


def test_a_condition_evaluated_first_sees_no_text_of_others(tenants: Tenants):
    """The planner may put a statement's condition before the view's: text is masked there too."""
    with tenants.tenant() as connection:
        seen: list[str] = []
        connection.add_notice_handler(lambda notice: seen.append(notice.message_primary or ""))
        connection.execute(
            "CREATE FUNCTION pg_temp.peek(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0001"
            " AS $$ BEGIN IF strpos(value, 'zq' || 'beta') > 0 THEN RAISE NOTICE '%', value; END IF;"
            " RETURN true; END $$"
        )
        columns = connection.execute(
            """
            SELECT n.nspname, c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = ANY (%s) AND a.attnum > 0
              AND a.atttypid = ANY ('{text,text[],pg_node_tree,bytea,name,name[]}'::regtype[])
            """,
            (["tp_catalog", "tp_catalog_sys", "tp_catalog_list"],),
        ).fetchall()
        assert len(columns) > 200
        for schema, relation, column in columns:
            if column not in FOUND_BY_INDEX:
                connection.execute(f"SELECT FROM {schema}.{relation} WHERE pg_temp.peek({column}::text)")
                leaked = [text for text in seen if OTHER in text]
                assert leaked == [], f"{schema}.{relation}.{column}"
                seen.clear()
        # nor beside a row of its own that it does not belong to
        for setting in ("hashjoin", "mergejoin", "indexscan", "bitmapscan", "indexonlyscan", "memoize"):
            connection.execute(f"SET enable_{setting} = off")
        for column in ("pg_policy.polname", "pg_attrdef.adbin", "pg_policies.qual", "pg_rules.definition"):
            relation = column.partition(".")[0]
            connection.execute(f"SELECT FROM tp_catalog.{relation} WHERE pg_temp.peek({column}::text)")
            assert [text for text in seen if OTHER in text] == [], column
        connection.rollback()


def test_statistics_of_the_catalogs_are_not_shown(tenants: Tenants):
    """Their most common values are the names of all."""
    with tenants.superuser() as connection:
        connection.execute("ANALYZE pg_namespace, pg_attribute")
    with tenants.tenant() as connection:
        sql = "SELECT count(*) FROM tp_catalog.pg_stats WHERE schemaname = %s"
        assert connection.execute(sql, ("pg_catalog",)).fetchone() == (0,)
        assert connection.execute(sql, (OWN,)).fetchone() != (0,)


def test_plans_name_nobody(tenants: Tenants):
    with tenants.superuser() as connection:
        views = [(schema, name) for schema in SCHEMAS for name in relations(connection, schema)]
    with tenants.tenant() as connection:
        for schema, name in views:
            plan = connection.execute(f"EXPLAIN (VERBOSE) SELECT * FROM {schema}.{name}").fetchall()
            assert OTHER not in str(plan)
